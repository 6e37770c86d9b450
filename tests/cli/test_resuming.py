"""The same command continues the same run, from the newest checkpoint that can be trusted, wherever that lies."""

import json
import os
import shutil
from pathlib import Path

import pytest

RUN, AUTO = "logging.run_name=mine", "checkpointing.auto_resume=true"
HALF = "training.max_steps=2"
CHECKPOINTS = Path("runs/mine/checkpoints")


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
    """Leave out the closing table and samples, which take longer than these runs."""
    monkeypatch.setattr("cli.training.print_summary", lambda *_: None)


def steps_of(folder: Path) -> list[int]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


def latest_step() -> str:
    return (CHECKPOINTS / "latest").readlink().name


def test_auto_resume_starts_a_run_and_the_same_command_goes_on(train_small):
    assert train_small(RUN, AUTO, HALF).code == 0
    outcome = train_small(RUN, AUTO)
    assert outcome.code == 0
    assert "resuming after step 2 from runs/mine/checkpoints/step_00000002" in outcome.err
    assert steps_of(Path("runs/mine")) == [1, 2, 3, 4]
    assert "already at step 4 of 4" in train_small(RUN, AUTO).out


def test_auto_resume_without_a_name_goes_on_with_the_run_of_the_same_configuration_only(train_small):
    assert train_small(AUTO, HALF).code == 0
    (first,) = [path for path in Path("runs").iterdir() if not path.is_symlink()]
    assert "already at step 2 of 2" in train_small(AUTO, HALF).out
    assert train_small(AUTO, HALF, RUN).code == 0
    assert latest_step() == "step_00000002"
    assert {path.name for path in Path("runs").iterdir()} == {first.name, "mine", "latest"}


@pytest.mark.slow
def test_a_run_that_died_before_its_first_checkpoint_starts_over(train_small):
    assert train_small(RUN, AUTO, HALF).code == 0
    shutil.rmtree(CHECKPOINTS)
    assert train_small(RUN, AUTO, HALF).code == 0
    assert steps_of(Path("runs/mine")) == [1, 2]
    shutil.rmtree(CHECKPOINTS)
    assert train_small(RUN, HALF).code == 2, "without auto_resume a folder with files in it is refused"


@pytest.mark.slow
def test_damage_is_refused_or_with_auto_resume_told_of_and_passed_over(train_small):
    assert train_small(RUN).code == 0
    os.truncate(CHECKPOINTS / "step_00000004" / "optimizer.pt", 100)
    refused = train_small(RUN, "checkpointing.resume_from=latest")
    assert refused.code == 2
    assert "optimizer.pt is truncated" in refused.err
    assert "the newest intact checkpoint is runs/mine/checkpoints/step_00000002" in refused.err
    outcome = train_small(RUN, AUTO)
    assert outcome.code == 0
    assert "optimizer.pt is truncated" in outcome.out
    assert "resuming after step 2" in outcome.err
    assert steps_of(Path("runs/mine")) == [1, 2, 3, 4]
    for path in CHECKPOINTS.glob("step_*/rng.pt"):
        path.unlink()
    hopeless = train_small(RUN, AUTO)
    assert hopeless.code == 2
    assert "rng.pt is missing; no intact checkpoint lies beside it" in hopeless.err


@pytest.mark.slow
def test_best_and_latest_are_told_apart(train_small):
    assert train_small(RUN, "checkpointing.keep_last=0").code == 0
    os.replace(CHECKPOINTS / "latest", CHECKPOINTS / "best")  # the last evaluation was the best: make it the other way
    os.symlink("step_00000002", CHECKPOINTS / "latest")
    assert "resuming after step 2 " in train_small(RUN, HALF, "checkpointing.resume_from=latest").err
    assert "resuming after step 4 " in train_small(RUN, "checkpointing.resume_from=best").err


@pytest.mark.slow
def test_a_machine_that_lost_its_disk_goes_on_from_the_upload(train_small, tmp_path):
    remote = f"checkpointing.remote_url=file://{tmp_path}/store"
    assert train_small(RUN, AUTO, HALF, remote).code == 0
    assert (tmp_path / "store" / "mine" / "step_00000002" / "manifest.json").is_file()
    shutil.rmtree("runs")
    outcome = train_small(RUN, AUTO, remote)
    assert outcome.code == 0
    assert "resuming after step 2" in outcome.err
    assert steps_of(Path("runs/mine")) == [3, 4]
    shutil.rmtree("runs")
    outcome = train_small(f"checkpointing.resume_from=file://{tmp_path}/store/mine/step_00000002")
    assert outcome.code == 0
    assert steps_of(Path("runs/mine")) == [3, 4]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("remote_url=s3:bucket", "checkpointing.remote_url: 's3:bucket' is no URL; write s3://bucket/folder"),
        ("remote_url=ftpx://host/folder", "unknown protocol ftpx://"),
        ("resume_from=file:///nowhere/mine", "file:///nowhere/mine holds no complete checkpoint"),
        ("resume_from=best", "checkpointing.resume_from: no run or checkpoint at runs/latest"),
    ],
)
def test_what_cannot_be_reached_is_refused_before_training(setting, message, train_small):
    outcome = train_small(RUN, f"checkpointing.{setting}")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
