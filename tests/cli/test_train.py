"""Training runs end to end: what they leave behind, and what they say when something is wrong."""

import gzip
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli import infer
from transformerlm.inference.predictor import Predictor

RUN = "logging.run_name=mine"


def steps_of(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


def wait_for(path, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


CONFIGS = {
    "train.toml": {"this model": False},
    "train_diffusion.toml": {"this model": True},
    "train_block_diffusion.toml": {"this model": True},
    "train_joint.toml": {"causal": False, "diffusion": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_leaves_everything_behind_and_can_be_generated_from(train_small, run, config):
    outcome = train_small(RUN, config=config)
    assert outcome.code == 0, outcome.err
    folder = Path("runs/mine")
    assert Path("runs/latest").resolve() == folder.resolve()
    assert {"config.toml", "tokenizer", "metrics.jsonl", "checkpoints", "summary.json"} <= set(os.listdir(folder))
    assert steps_of(folder) == [1, 2, 3, 4]
    summary = json.loads((folder / "summary.json").read_text())
    figures = {line["name"]: line for line in summary["held_out"]}
    assert list(figures) == ["unigram", "bigram", *CONFIGS[config], "the truth"]
    assert {name: figures[name]["is_bound"] for name in CONFIGS[config]} == CONFIGS[config]
    assert ("<=" in outcome.out) == (True in CONFIGS[config].values())
    assert figures["the truth"]["nats_per_token"] < figures["bigram"]["nats_per_token"]
    assert "held-out text" in outcome.out
    generated = run(
        infer.main, "infer.toml", "inference.total_length=20", "inference.steps=4", "inference.block_length=8"
    )
    assert generated.code == 0, generated.err
    assert generated.out.startswith("Once upon a time")


def first_loss(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"]


@pytest.mark.slow
def test_block_diffusion_begins_where_autoregressive_weights_ended(train_small, trained):
    weights = f"training.init_from={trained('autoregressive')}"
    blocks = ["objective.name=block_diffusion", "objective.shift_logits=true", "training.max_steps=2"]
    blocks += ["objective.block_length=4", "objective.warmup_block_lengths=[1]", "objective.warmup_block_steps=1"]
    outcome = train_small("logging.run_name=blocks", weights, *blocks)
    assert outcome.code == 0, outcome.err
    assert "(autoregressive, step_00000002)" in outcome.out
    assert train_small("logging.run_name=onward", weights, "training.max_steps=2").code == 0
    assert train_small("logging.run_name=random", *blocks).code == 0
    # Blocks of one token with shifted logits are autoregression, up to the mask, which is no answer, and one token.
    expected = first_loss(Path("runs/onward"))
    assert abs(first_loss(Path("runs/blocks")) - expected) < 0.005 * expected
    assert first_loss(Path("runs/random")) > 1.015 * expected
    description = json.loads(Path("runs/blocks/checkpoints/latest/model.json").read_text())
    assert (description["shape"]["block_length"], description["shape"]["shift_logits"]) == (4, True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layers=2", "another shape: num_layers is 1 there and 2 here; set [model] to the shape"),
        ("model.rope_theta=100.0", "rope_theta is 10000.0 there and 100.0 here"),
    ],
)
def test_weights_of_another_shape_are_refused_in_a_sentence(train_small, trained, override, message):
    outcome = train_small(f"training.init_from={trained('autoregressive')}", "logging.run_name=other", override)
    assert outcome.code == 2
    assert "training.init_from: " in outcome.err
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("runs/other").exists()


def test_weights_that_are_not_there_are_refused(train_small):
    outcome = train_small("training.init_from=runs/none")
    assert outcome.code == 2
    assert "training.init_from: no run or checkpoint at runs/none" in outcome.err


def test_the_saved_configuration_repeats_the_run(train_small, run):
    from cli.train import main

    assert train_small(RUN).code == 0
    assert run(main, Path("runs/mine/config.toml").resolve(), "logging.run_name=again").code == 0
    first, second = (load_file(f"runs/{name}/checkpoints/latest/model.safetensors") for name in ("mine", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["train.toml", pytest.param("train_joint.toml", marks=pytest.mark.long)])
def test_two_processes_train_together(train_small, config):
    outcome = train_small(RUN, "ddp.nproc_per_node=2", config=config)
    assert outcome.code == 0, outcome.err
    assert steps_of(Path("runs/mine")) == [1, 2, 3, 4]
    last = json.loads((Path("runs/mine") / "metrics.jsonl").read_text().splitlines()[0])
    assert last["tokens"] == 2 * 4 * 64


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_interrupted_run_saves_and_says_how_to_resume(start, small_arguments, number, exit_code):
    process = start("-m", "cli.train", *small_arguments("training.max_steps=100000", RUN))
    wait_for(Path("runs/mine/metrics.jsonl"), process)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    assert "checkpointing.resume_from=runs/mine" in err
    assert "Traceback" not in err
    last = steps_of(Path("runs/mine"))[-1]
    assert Path("runs/mine/checkpoints/latest").resolve().name == f"step_{last:08d}"
    assert Predictor.from_checkpoint("runs/mine").objective == "autoregressive"


def test_a_run_folder_that_exists_is_not_overwritten(train_small):
    assert train_small(RUN).code == 0
    before = Path("runs/mine/metrics.jsonl").read_text()
    outcome = train_small(RUN)
    assert outcome.code == 2
    assert "runs/mine" in outcome.err
    assert "exists" in outcome.err
    assert Path("runs/mine/metrics.jsonl").read_text() == before


def test_an_unwritable_run_folder_is_named(train_small):
    Path("runs").write_text("a file where a folder should be")
    outcome = train_small(RUN)
    assert outcome.code == 2
    assert "run folder runs/mine cannot be written" in outcome.err


def test_cuda_asked_for_and_missing(train_small):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    outcome = train_small("training.device=cuda")
    assert outcome.code == 2
    assert "torch sees no CUDA device" in outcome.err


def test_a_loss_that_is_not_a_number_stops_with_step_origin_and_checkpoint(train_small):
    assert train_small(RUN).code == 0
    weights = Path("runs/mine/checkpoints/latest/model.safetensors")
    tensors = load_file(weights)
    tensors["norm.weight"][:] = float("nan")
    save_file(tensors, weights)
    mend_manifest(weights)
    outcome = train_small("checkpointing.resume_from=runs/mine", "training.max_steps=8")
    assert outcome.code == 1
    assert "step 5: the loss is nan" in outcome.err
    assert "synthetic/stories train, epoch 0, document" in outcome.err
    assert "the last good checkpoint is" in outcome.err
    assert "Traceback" not in outcome.err


def mend_manifest(changed):
    """Make the manifest agree with a file that was changed on purpose."""
    from trainkit.checkpointing.manifest import write_manifest

    (changed.parent / "manifest.json").unlink()
    write_manifest(changed.parent.resolve())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "model.safetensors"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_an_intact_one(train_small, damage, message):
    assert train_small(RUN).code == 0
    damage(Path("runs/mine/checkpoints/step_00000004"))
    outcome = train_small("checkpointing.resume_from=runs/mine", "training.max_steps=8")
    assert outcome.code == 2
    assert message in outcome.err
    assert "step_00000002" in outcome.err


def test_a_checkpoint_of_another_model_is_refused(train_small):
    assert train_small(RUN).code == 0
    before = Path("runs/mine/config.toml").read_text()
    outcome = train_small("checkpointing.resume_from=runs/mine", "training.max_steps=8", "model.d_model=64")
    assert outcome.code == 2
    assert "is of another model" in outcome.err
    assert Path("runs/mine/config.toml").read_text() == before


def test_a_checkpoint_of_another_objective_is_refused(train_small):
    assert train_small(RUN).code == 0
    outcome = train_small("checkpointing.resume_from=runs/mine", "objective.name=masked_diffusion")
    assert outcome.code == 2
    assert 'was trained with objective.name = "autoregressive", and this run has "masked_diffusion"' in outcome.err


def test_a_checkpoint_of_another_optimizer_is_refused(train_small):
    assert train_small(RUN).code == 0
    outcome = train_small("checkpointing.resume_from=runs/mine", "training.max_steps=8", "optimizer.name=adamw")
    assert outcome.code == 2
    assert "optimizer" in outcome.err
    assert "Traceback" not in outcome.err


def test_resuming_a_finished_run_says_so(train_small):
    assert train_small(RUN).code == 0
    outcome = train_small("checkpointing.resume_from=latest")
    assert outcome.code == 0
    assert "already at step 4 of 4: raise training.max_steps to train on" in outcome.out


def test_a_start_that_fails_leaves_latest_at_the_last_good_run(train_small):
    assert train_small(RUN).code == 0
    Path("short.txt").write_text("Just a few words.")
    files = 'data.data_files={train="short.txt", validation="short.txt"}'
    overrides = ["data.dataset_name=text", files, "training.skip_validation=true", "logging.run_name=other"]
    assert train_small(*overrides).code == 2
    assert Path("runs/latest").resolve().name == "mine"
    assert train_small("checkpointing.resume_from=latest").code == 0


def test_a_foreign_folder_is_refused_before_anything_is_created(train_small):
    Path("foreign").mkdir()
    outcome = train_small("checkpointing.resume_from=foreign")
    assert outcome.code == 2
    assert "foreign" in outcome.err
    assert not Path("runs").exists()


def test_a_prompt_without_room_is_refused_before_training(train_small):
    outcome = train_small(
        'sampling.prompts=["Once upon a time there was a very long prompt"]', "sampling.total_length=9"
    )
    assert outcome.code == 2
    assert "sampling.prompts:" in outcome.err
    assert "raise sampling.total_length" in outcome.err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_training(start, small_arguments):
    process = start("-m", "cli.train", *small_arguments(RUN))
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 0, err
    assert steps_of(Path("runs/mine")) == [1, 2, 3, 4]
    assert Path("runs/mine/summary.json").is_file()
    assert "Traceback" not in err


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_share_a_model_and_one_uses_what_they_saved(start, small_arguments, run):
    sharing = ("ddp.nproc_per_node=2", "ddp.strategy=fsdp", "ddp.activation_checkpointing=true")
    process = start("-m", "cli.train", *small_arguments(RUN, *sharing, "sampling.every=3", "optimizer.ema_decay=0.9"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert steps_of(Path("runs/mine")) == [1, 2, 3, 4]
    assert "step 3 | " in err
    assert "FSDP2" not in err
    assert "this model" in out
    generated = run(infer.main, "infer.toml", "inference.total_length=20", "checkpoint.path=runs/mine")
    assert generated.code == 0, generated.err
    folder = Path("runs/mine/checkpoints/latest")
    averaged, trained = (load_file(folder / f"model{kind}.safetensors") for kind in ("_averaged", ""))
    for kind, expected in (("auto", averaged), ("averaged", averaged), ("trained", trained)):
        model = Predictor.from_checkpoint("runs/mine", "cpu", kind).model
        assert torch.equal(model.embedding.weight, expected["embedding.weight"])
    assert not torch.equal(averaged["embedding.weight"], trained["embedding.weight"])


def test_averaged_weights_that_no_run_kept_are_refused_with_a_remedy(train_small, run):
    assert train_small(RUN).code == 0
    outcome = run(infer.main, "infer.toml", "inference.total_length=20", "checkpoint.weights=averaged")
    assert outcome.code == 2
    assert "kept no moving average of its weights; train with optimizer.ema_decay, or set" in outcome.err


def test_profile_steps_leave_a_trace_in_the_run_folder(train_small):
    outcome = train_small("training.profile_steps=[2,3]", "logging.run_name=traced")
    assert outcome.code == 0
    with gzip.open("runs/traced/trace_steps_2_3.json.gz", "rt") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert {"fetch", "forward", "layer 0", "backward", "clip", "optimizer"} <= set(names)


@pytest.mark.parametrize("steps", ["[2]", "[3,2]", "[2,3,4]", "[2,99999]"])
def test_profile_steps_must_be_a_range_of_the_run(train_small, steps):
    outcome = train_small(f"training.profile_steps={steps}")
    assert outcome.code == 2
    assert "training.profile_steps" in outcome.err
