"""transformerlm-export and transformerlm-import as a user runs them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cli import export, import_model, infer, train
from transformerlm.checkpoint import load_model
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.tokenizer import Tokenizer


@pytest.fixture
def call(capsys):
    """Run a command by its options; returns (exit code, standard output, standard error)."""

    def run(main, *arguments):
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_checkpoint_goes_out_and_comes_back_bit_by_bit(checkpoint, call):
    code, out, err = call(export.main, "--checkpoint", "runs/latest", "--out", "there")
    assert code == 0, err
    objective = load_model(checkpoint).objective
    assert ("Qwen3ForCausalLM" if objective == "autoregressive" else "MaskedDiffusionLM") in out
    assert "its logits are those of the checkpoint" in out
    code, out, err = call(import_model.main, "--folder", "there", "--out", "back")
    assert code == 0, err
    assert f"back: {objective} model" in out
    ours, back = load_model(checkpoint), load_model("back")
    assert (back.objective, back.tokenizer, back.model.shape) == (objective, ours.tokenizer, ours.model.shape)
    for name, weight in ours.model.state_dict().items():
        assert torch.equal(weight, back.model.state_dict()[name]), name


def test_what_came_in_can_be_sampled_from(checkpoint, call, run):
    assert call(export.main, "--out", "there")[0] == 0  # runs/latest is the default
    assert call(import_model.main, "--folder", "there", "--out", "back")[0] == 0
    overrides = ["inference.num_samples=2", "inference.total_length=24", "inference.steps=24"]
    before = run(infer.main, "infer.toml", *overrides)
    after = run(infer.main, "infer.toml", "checkpoint.path=back", *overrides)
    assert (after.code, after.out) == (0, before.out)


def test_the_card_holds_what_the_run_recorded_and_nothing_else(checkpoint, call):
    summary = {"held_out": [{"name": "this model", "nats_per_token": 5.43219, "bits_per_byte": 1.6, "is_bound": True}]}
    Path("runs/mine/summary.json").write_text(json.dumps(summary))
    assert call(export.main, "--out", "there")[0] == 0
    card = Path("there/README.md").read_text()
    records = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    validation = next(record["validation_loss"] for record in reversed(records) if "validation_loss" in record)
    tokens = next(record["tokens_seen"] for record in reversed(records) if "loss" in record)
    for fact in (
        "# mine",
        "`synthetic/stories`",
        "2 steps",
        f"{tokens:,.0f} tokens",
        f"{validation:.4f} nats",
        "5.432",
    ):
        assert fact in card
    with Path("runs/mine/metrics.jsonl").open("a") as file:  # the run went on: the table is not of this checkpoint
        file.write('{"step": 9, "loss": 0.1, "tokens_seen": 77777}\n{"step": 10, "lo')
    assert call(export.main, "--out", "later")[0] == 0
    later = Path("later/README.md").read_text()
    assert "5.432" not in later
    assert "77,777" not in later
    assert f"{tokens:,.0f} tokens" in later


def test_a_checkpoint_without_its_run_has_a_card_without_figures(checkpoint, call):
    shutil.copytree(Path("runs/mine/checkpoints/latest").resolve(), "alone")
    assert call(export.main, "--checkpoint", "alone", "--out", "there")[0] == 0
    card = Path("there/README.md").read_text()
    assert "steps" not in card
    assert "nats" not in card
    assert "objective `" in card


def test_a_tokenizer_goes_out_and_comes_back(checkpoint, call):
    code, out, err = call(export.main, "--out", "tokens", "--set", "export.format=tokenizer")
    assert code == 0, err
    assert "4096 tokens as tokenizer.json, tokenizer.tiktoken, tokenizer.tiktoken.json" in out
    ours = load_model(checkpoint).tokenizer
    sources = {"json": "tokens/tokenizer.json", "ranks": "tokens/tokenizer.tiktoken", "folder": "tokens"}
    for name, source in sources.items():
        code, out, err = call(import_model.main, "--folder", source, "--out", name)
        assert code == 0, err
        assert Tokenizer.load(name) == ours


def test_gguf_is_one_file(trained, call):
    pytest.importorskip("gguf", reason="writes the format")
    run_folder = str(trained("autoregressive"))
    arguments = ["--checkpoint", run_folder, "--set", "export.format=gguf", "--set", "export.dtype=bfloat16"]
    code, out, err = call(export.main, *arguments, "--out", "model.gguf")
    assert code == 0, err
    assert Path("model.gguf").read_bytes()[:4] == b"GGUF"
    assert "in bfloat16" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere"], "checkpoint.path: no run or checkpoint at nowhere"),
        (["--out", "config"], "config holds something already; choose a new name"),
        (["--set", "export.dtype=float16"], "export.dtype"),
        (["--set", "export.format=onnx"], "export.format"),
        (["--set", "export.generation_mode=diffusion"], "needs weights trained for it"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(trained, call, arguments, message):
    Path("runs").mkdir()
    Path("runs/latest").symlink_to(trained("autoregressive"))
    code, out, err = call(export.main, "--out", "there", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("there").exists()


@pytest.mark.parametrize(
    ("folder", "message"),
    [("nowhere", "importing.path: no such file or folder: nowhere"), (".", "neither tokenizer.json nor GPT-2's")],
)
def test_what_is_no_model_is_refused(call, folder, message):
    code, out, err = call(import_model.main, "--folder", folder, "--out", "back")
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("back").exists()


def test_paths_are_taken_as_they_are(call):
    code, _, err = call(import_model.main, "--folder", 'a "b" 3', "--out", "back")
    assert code == 2
    assert 'no such file or folder: a "b" 3' in err
    assert "no such file or folder: 7" in call(import_model.main, "--folder", "7", "--out", "back")[2]


@pytest.mark.slow
def test_the_default_model_answers_through_a_pipeline(call, run, monkeypatch):
    """The default configuration, a few steps long, in transformers.pipeline: ids, logits and text are ours."""
    transformers = pytest.importorskip("transformers", reason="an independent reference")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    short = ["training.max_steps=30", "training.skip_validation=true", "sampling.prompts=[]", "logging.run_name=mine"]
    assert run(train.main, "train.toml", *short, "optimizer.warmup_steps=5").code == 0
    assert call(export.main, "--out", "there")[0] == 0
    ours = load_model("runs/mine")
    generate = transformers.pipeline("text-generation", model="there")
    for prompt in ("Once upon a time", "Long ago, in"):
        ids = generate.tokenizer(prompt, return_tensors="pt").input_ids
        assert ids[0].tolist() == [ours.tokenizer.end_of_text_id, *ours.tokenizer.encode(prompt)]
        with torch.no_grad():
            logits = generate.model(ids).logits
            assert (logits - ours.model(ids, is_causal=True)).abs().max() < 1e-4
        settings = GenerationSettings(total_length=160, sampling=SamplingSettings(temperature=0.0))
        text = Predictor(ours).generate([prompt], settings)[0].text
        assert len(text) > len(prompt)
        assert generate(prompt, do_sample=False)[0]["generated_text"] == text
