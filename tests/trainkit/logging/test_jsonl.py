"""metrics.jsonl holds each step once, whatever was resumed."""

import json
from pathlib import Path

import pytest
from trainkit_workers import make_settings, make_trainer

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World
from trainkit.errors import RunWriteError
from trainkit.logging.jsonl import JsonlLogger, drop_records_after


def steps_in(path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_resumed_run_has_every_step_once_and_the_same_losses_as_an_uninterrupted_one(tmp_path):
    def train(name: str, resume_at: int | None = None, max_steps: int = 6):
        manager = CheckpointManager(tmp_path / name, Retention(keep_last=0))
        logger = JsonlLogger(tmp_path / name / "metrics.jsonl", unit="tokens")
        trainer = make_trainer(World(), make_settings(6, save_every=2), callbacks=[logger], checkpoints=manager)
        trainer.max_steps = max_steps
        if resume_at:
            trainer.resume(manager.folder / f"step_{resume_at:08d}")
        trainer.fit()
        return tmp_path / name / "metrics.jsonl"

    whole, cut = train("whole"), train("cut", max_steps=5)
    assert steps_in(cut) == [1, 2, 3, 4, 5]
    train("cut", resume_at=2)
    assert steps_in(cut) == steps_in(whole) == [1, 2, 3, 4, 5, 6]
    for a, b in zip(whole.read_text().splitlines(), cut.read_text().splitlines(), strict=True):
        a, b = json.loads(a), json.loads(b)
        timeless = ("step", "loss", "learning_rate", "grad_norm", "tokens", "tokens_seen", "accuracy")
        assert [a[name] for name in timeless] == [b[name] for name in timeless]
        assert a["elapsed_s"] > 0
        assert {"tokens_per_second", "step_ms", "data_wait_ms"} <= a.keys()


def test_a_full_disk_ends_training_with_the_file_the_reason_and_what_is_intact():
    logger = JsonlLogger(Path("/dev/full"))
    logger._file = logger.path.open("a")
    trainer = make_trainer(World(), make_settings(), callbacks=[logger])
    logger.on_train_start = lambda step, max_steps: None
    with pytest.raises(
        RunWriteError, match=r"cannot write /dev/full: No space left on device; checkpoints already saved are intact"
    ):
        trainer.fit()


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "", "null", '{"other": 1}'])
def test_a_line_that_a_crash_cut_short_is_dropped(torn, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n' + torn)
    drop_records_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
