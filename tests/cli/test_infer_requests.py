"""What transformerlm-infer can be asked, and how it answers: files of requests, JSON lines, gaps, traces, refusals."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli import infer
from transformerlm.inference.trace import Trace
from transformerlm.tokenizer import Tokenizer

SHORT = ["inference.total_length=32", "inference.steps=8", "inference.block_length=16", "inference.num_samples=1"]


@pytest.fixture
def ask(capsys):
    """Call transformerlm-infer with options and overrides; returns exit code, standard output and standard error."""

    def call(*options, overrides=()):
        pairs = [part for override in (*SHORT, *overrides) for part in ("--set", override)]
        code = infer.main(["--config", "config/resources/infer.toml", *pairs, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def diffusion(trained):
    Path("runs").mkdir()
    Path("runs/latest").symlink_to(trained("masked_diffusion"))


def test_a_file_of_requests_gives_a_json_line_each(checkpoint, ask):
    requests = [
        "Once upon a time",
        json.dumps({"prompt": "Long ago", "seed": 7, "id": "second"}),
        json.dumps({"template": "Once {mask:3} a {mask:2}.", "id": 3}),
        json.dumps({"tokens": [Tokenizer.load("runs/mine/checkpoints/latest/tokenizer").end_of_text_id, 300, 301]}),
        json.dumps({"prompt": "Once upon a time", "mask_positions": [1]}),
    ]
    Path("prompts.jsonl").write_text("\n\n".join(requests) + "\n")
    code, out, err = ask("--prompts", "prompts.jsonl", "--json", "--log-probs", overrides=["inference.batch_size=2"])
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["prompt"] for line in lines[:2]] == ["Once upon a time", "Long ago"]
    assert [line.get("id") for line in lines] == [None, "second", 3, None, None]
    assert lines[2]["prompt"] == "Once"
    assert " a" in lines[2]["completion"]
    assert lines[2]["completion"].endswith(".")
    assert lines[4]["completion"].endswith(" a time")
    assert all(len(line["log_probs"]) == line["generated_tokens"] for line in lines)
    alone = ask("--prompt", "Long ago", "--json", overrides=["inference.seed=7"])
    assert json.loads(alone[1])["completion"] == lines[1]["completion"]


def test_standard_input_is_read_line_by_line(checkpoint, ask, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Once\nLong ago\n"))
    code, out, _ = ask("--prompts", "-", overrides=["inference.stop=['no such text']"])
    assert code == 0
    first, second = out.split("\n\n")
    assert first.startswith("Once")
    assert second.startswith("Long ago")


@pytest.mark.parametrize("name", ["trace.json", "trace.html"])
def test_a_trace_is_written_beside_the_same_text(checkpoint, ask, name):
    _, plain, _ = ask()
    code, out, err = ask("--trace", name)
    assert (code, out) == (0, plain)
    assert f"trace: {name}" in err
    if name.endswith("json"):
        tokenizer = Tokenizer.load("runs/mine/checkpoints/latest/tokenizer")
        assert Trace.load(name).text(0, tokenizer) + "\n" == plain
    else:
        assert Path(name).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', "prompts.jsonl:1: prompt cannot be 3"),
        ('{"promt": "a"}', "unknown key 'promt'; known are prompt, template"),
        ('{"prompt": "a"', "not JSON"),
        ("{}", "give one of prompt, template and tokens, not none"),
        ('{"prompt": "a", "template": "b"}', "not prompt and template"),
        ('{"tokens": [1, "a"]}', "tokens cannot be"),
        ('{"tokens": [99999]}', "prompts.jsonl:1: tokens [99999] lie outside the vocabulary; use ids from 0 to 4095"),
        (
            '{"prompt": "a <|mask|> b"}',
            "holds the mask token <|mask|>; to have a gap filled in, write it as a template",
        ),
        ('{"template": "no gaps"}', "has nothing to fill in; write {mask:8}"),
        ('{"template": "{mask:40}"}', "template 0 takes 41 tokens, more than total_length = 32"),
        ("", "holds no request"),
    ],
)
def test_requests_that_cannot_be_are_refused_with_a_remedy(diffusion, ask, line, message):
    Path("prompts.jsonl").write_text(line)
    code, out, err = ask("--prompts", "prompts.jsonl")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_requests_are_checked_before_torch_is_loaded(diffusion):
    Path("prompts.jsonl").write_text('{"tokens": [99999]}')
    arguments = [
        "--config",
        "config/resources/infer.toml",
        "--set",
        "inference.cache=block",
        "--prompts",
        "prompts.jsonl",
    ]
    code = f"import sys; from cli import infer; print(infer.main({arguments}), 'torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "2 False\n", process.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inference.cache=block", "cache = 'block' is exact for block-causal models only"),
        ("inference.steps=1", "steps = 1 is fewer than the 2 blocks of 16 that 27 tokens make; raise steps"),
        ("inference.generation_mode=verified", "this checkpoint's objective is 'masked_diffusion'"),
        ("inference.remasking=treshold", 'did you mean "threshold"?'),
        ("inference.mask_positions=[9]", "mask_positions [9] lie outside the prompt's 4 tokens"),
        ("inference.min_new_tokens=4 inference.ignore_eos=true", "so min_new_tokens = 4 means nothing; leave one"),
        ("inference.end_last=true inference.ignore_eos=true", "so end_last = true means nothing; leave one of the two"),
        ("inference.min_new_tokens=40", "40 tokens do not fit into total_length = 32; lower it"),
    ],
)
def test_impossible_combinations_are_refused_with_a_remedy(diffusion, ask, override, message):
    code, out, err = ask(overrides=override.split())
    assert (code, out) == (2, "")
    assert message in err


def test_log_probabilities_need_json_and_files_must_be_there(diffusion, ask):
    assert "add --json" in ask("--log-probs")[2]
    assert "--prompts: cannot read nowhere.jsonl" in ask("--prompts", "nowhere.jsonl")[2]


@pytest.mark.parametrize("overrides", [
    ["inference.remasking=remdm", "inference.steps=20"],
    ["inference.remasking=threshold", "inference.cache=dual", "inference.confidence_threshold=0.1"],
    ["inference.remasking=entropy_bound", "inference.cache=prefix", "inference.cfg_scale=0.5"],
    ["inference.remasking=first_hitting", "inference.min_p=0.01", "inference.repetition_penalty=1.3"],
])  # fmt: skip
def test_every_way_of_sampling_can_be_configured(diffusion, ask, overrides):
    code, out, err = ask(overrides=overrides)
    assert code == 0, err
    assert out.startswith("Once upon a time")
    assert "░" not in out
