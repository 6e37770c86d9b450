"""Generation from a checkpoint: the same text streamed or at once, and clear refusals."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli import bench_infer, infer
from cli.display import LiveText, wrap
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.inference.sampling import SamplingSettings

SHORT = ["inference.total_length=32", "inference.steps=8", "inference.block_length=16", "inference.num_samples=2"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal and understands the two escapes in use."""

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = [""], 0, 0
        text = self.getvalue()
        while text:
            if text.startswith("\033["):
                code, text = text[2:].split(text[2:].lstrip("0123456789")[0], 1)[0], text
                kind = text[2 + len(code)]
                text = text[3 + len(code) :]
                if kind == "A":
                    row -= int(code or 1)
                elif kind == "J":
                    lines = [*lines[:row], lines[row][:column]]
                continue
            character, text = text[0], text[1:]
            if character == "\r":
                column = 0
            elif character == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] = lines[row][:column] + character
                column += 1
        return "\n".join(lines)


def test_a_terminal_shows_the_same_texts_as_a_pipe(checkpoint, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100000")
    piped = run(infer.main, "infer.toml", *SHORT)
    assert piped.code == 0, piped.err
    texts = piped.out.rstrip("\n").split("\n\n")
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        overrides = [part for override in SHORT for part in ("--set", override)]
        assert infer.main(["--config", "config/resources/infer.toml", *overrides]) == 0
    assert [line for line in terminal.screen().split("\n") if line] == "\n".join(texts).split("\n")


def test_the_predictor_repeats_the_command(checkpoint, run):
    piped = run(infer.main, "infer.toml", *SHORT, "inference.temperature=0.5", "inference.seed=3")
    settings = GenerationSettings(32, SamplingSettings(0.5), seed=3, steps=8, block_length=16)
    generations = Predictor.from_checkpoint("runs/latest").generate(["Once upon a time"] * 2, settings)
    assert piped.out == "\n\n".join(generation.text for generation in generations) + "\n"
    assert all(g.prompt_tokens + g.generated_tokens <= 32 for g in generations)


def test_prompts_of_different_lengths_are_what_they_would_be_alone(checkpoint):
    predictor = Predictor.from_checkpoint(checkpoint)
    settings = GenerationSettings(40, SamplingSettings(0.0), steps=40, block_length=8)
    prompts = ["", "Once upon a time", "Hugo wanted a golden ship, and"]
    predictor.model.double()
    together = predictor.generate(prompts, settings)
    alone = [predictor.generate([prompt], settings)[0] for prompt in prompts]
    assert [each.text for each in alone] == [each.text for each in together]
    assert [each.log_probs for each in alone] == [pytest.approx(each.log_probs) for each in together]


def test_text_ends_before_a_stop_string(checkpoint):
    predictor = Predictor.from_checkpoint(checkpoint)
    settings = GenerationSettings(40, SamplingSettings(0.0), steps=40, block_length=8)
    full = predictor.generate(["Once"], settings)[0].completion
    stop = full[len(full) // 2 : len(full) // 2 + 3]
    stopped = predictor.generate(
        ["Once"], GenerationSettings(40, SamplingSettings(0.0), stop=(stop,), steps=40, block_length=8)
    )
    assert stopped[0].completion == full[: full.index(stop)]


def test_updates_grow_towards_the_completion(checkpoint):
    predictor, seen = Predictor.from_checkpoint(checkpoint), []
    settings = GenerationSettings(24, steps=8, block_length=8)
    (generation,) = predictor.generate(["Once"], settings, on_update=lambda row, text: seen.append(text))
    assert len(seen) >= 8
    assert seen[-1].startswith(generation.completion) or generation.completion.startswith(seen[-1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inference.total_length=65", "total_length = 65 exceeds the model's context_length = 64"),
        ("inference.prompt=" + "many words " * 30, "leaves no room in total_length = 32"),
        ("inference.generation_mode=other", "generation_mode"),
        ("checkpoint.path=runs/nothing", "runs/nothing"),
    ],
)
def test_impossible_requests_are_refused(checkpoint, run, override, message):
    outcome = run(infer.main, "infer.toml", *SHORT, override)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("override", ["inference.total_length=65", "inference.prompt=" + "many words " * 30])
def test_impossible_lengths_are_refused_before_anything_heavy(checkpoint, override):
    arguments = ["--config", "config/resources/infer.toml", "--set", "inference.total_length=32", "--set", override]
    code = f"import sys; from cli import infer; print(infer.main({arguments}), 'torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "2 False\n", process.stderr


def test_a_run_that_lost_its_newest_checkpoint_falls_back(trained, run):
    shutil.copytree(trained("autoregressive"), "runs/mine", symlinks=True)
    shutil.copytree("runs/mine/checkpoints/step_00000002", "runs/mine/checkpoints/step_00000001")
    shutil.rmtree("runs/mine/checkpoints/step_00000002")
    outcome = run(infer.main, "infer.toml", *SHORT, "checkpoint.path=runs/mine")
    assert outcome.code == 0, outcome.err


def test_a_run_without_a_checkpoint_says_so(run):
    Path("runs/mine/checkpoints").mkdir(parents=True)
    outcome = run(infer.main, "infer.toml", *SHORT, "checkpoint.path=runs/mine")
    assert outcome.code == 2
    assert "the run holds no checkpoint yet" in outcome.err


@pytest.mark.slow
def test_closed_and_full_outputs_end_without_a_traceback(checkpoint):
    for redirect, code in ((">&-", 0), (">/dev/full", 1)):
        overrides = " ".join(f"--set {override}" for override in SHORT)
        shell = f"{sys.executable} -m cli.infer --config config/resources/infer.toml {overrides} {redirect}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_the_wrong_way_of_generating_is_refused(checkpoint):
    predictor = Predictor.from_checkpoint(checkpoint)
    wrong = "diffusion" if predictor.objective == "autoregressive" else "autoregressive"
    with pytest.raises(ValueError, match="this checkpoint's objective is"):
        predictor.generate(["Once"], GenerationSettings(32, mode=wrong))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: os.truncate(folder / "model.safetensors", 2000),
            "damaged, its sha256 is not that in manifest.json",
        ),
        (lambda folder: (folder / "model.json").write_text("{}"), "not a model description"),
        (lambda folder: (folder / "model.json").unlink(), "the run holds no checkpoint yet"),
        (lambda folder: (folder / "tokenizer" / "vocab.json").unlink(), "vocab.json"),
    ],
)
def test_damaged_checkpoints_are_refused_by_file(checkpoint, run, damage, message):
    damage(checkpoint / "checkpoints" / "latest")
    outcome = run(infer.main, "infer.toml", *SHORT)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize("objective", ["autoregressive", "masked_diffusion"])
def test_the_benchmark_prints_theory_and_figures(run, objective):
    outcome = run(
        bench_infer.main,
        "bench_infer.toml",
        "model.d_model=32",
        "model.num_heads=2",
        "inference.total_length=24",
        "inference.steps=4",
        "benchmark.prompt_length=8",
        "benchmark.repeats=2",
        f"objective.name={objective}",
    )
    assert outcome.code == 0, outcome.err
    theory, table = outcome.out.split("\n\n")
    assert "GB/s read" in theory
    rows = table.strip().split("\n")
    assert rows[0].split()[:2] == ["batch", "tokens/s"]
    assert rows[0].endswith("bound")
    assert [row.split()[0] for row in rows[1:]] == ["1", "8"]


def test_the_benchmark_prints_json_lines_for_programs(capsys):
    overrides = ["model.d_model=32", "model.num_heads=2", "inference.total_length=24", "benchmark.repeats=2"]
    overrides += ["benchmark.prompt_length=8", "inference.block_length=8", "inference.cache=dual", "inference.steps=4"]
    overrides += ["objective.name=masked_diffusion", "benchmark.batch_sizes=[2]"]
    arguments = [part for override in overrides for part in ("--set", override)]
    assert bench_infer.main(["--config", "config/resources/bench_infer.toml", "--json", *arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    # two blocks of two steps: one over all 24 positions and one over the block's 8, for 16 tokens
    assert (figures["NFE"], figures["fwd/token"], figures["tok/pass"]) == (4, (24 + 8) * 2 / 16, 4)


def test_wide_and_combining_characters_take_their_columns():
    assert wrap("\u72d0\u72f8ab", 4) == ["\u72d0\u72f8", "ab"]
    assert wrap("e\u0301" * 4, 4) == ["e\u0301" * 4]
    assert wrap("", 4) == [""]


def test_a_text_taller_than_the_terminal_shows_its_end_and_finishes_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "4")
    stream = io.StringIO()
    live = LiveText(stream)
    live.show("x")
    live.show("abcdefghij" * 6)
    assert stream.getvalue() == "x\r\033[J" + "\n".join(["abcdefghij"] * 3)
    live.finish("done")
    assert stream.getvalue().endswith("\r\033[2A\033[Jdone\n")


def test_live_text_redraws_wrapped_lines_in_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    stream = io.StringIO()
    live = LiveText(stream)
    live.show("a" * 25)
    live.show("b" * 5)
    assert stream.getvalue() == "a" * 25 + "\r\033[2A\033[J" + "b" * 5
