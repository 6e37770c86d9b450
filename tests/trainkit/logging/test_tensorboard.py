"""TensorBoard's files hold every number by step; without the package the user is told what to do."""

import sys

import pytest
from trainkit_workers import make_settings, make_trainer

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World
from trainkit.logging.tensorboard import TensorboardLogger


def read_scalars(folder) -> dict[str, list[tuple[int, float]]]:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow  # importing the package takes seconds
def test_a_run_and_its_continuation_read_as_one(tmp_path):
    pytest.importorskip("tensorboard")
    manager = CheckpointManager(tmp_path / "checkpoints", Retention(keep_last=0))

    def train(max_steps, resume_at=None):
        logger = TensorboardLogger(tmp_path / "tensorboard", unit="tokens")
        settings = make_settings(6, save_every=2)
        trainer = make_trainer(World(), settings, callbacks=[logger], checkpoints=manager)
        trainer.max_steps = max_steps
        if resume_at:
            trainer.resume(manager.folder / f"step_{resume_at:08d}")
        trainer.fit()

    train(5)
    train(6, resume_at=2)
    scalars = read_scalars(tmp_path / "tensorboard")
    assert [step for step, _ in scalars["loss"]] == [1, 2, 3, 4, 5, 6]
    assert {"tokens_per_second", "grad_norm", "learning_rate/hidden", "accuracy"} <= scalars.keys()
    assert "mfu" not in scalars, "what is not known is left out"


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"needs the tensorboard package: install it \(pip install tensorboard\), or"):
        TensorboardLogger(tmp_path)
