"""Training goes on while a checkpoint is written, and what is written is the moment at which it was begun."""

import errno
import threading
import time

import pytest
import torch
from safetensors.torch import load_file
from trainkit_workers import make_settings, make_trainer

from trainkit.callbacks import Callback
from trainkit.checkpointing import storage
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.retention import Retention
from trainkit.checkpointing.snapshot import HostCopies, Snapshot
from trainkit.distributed.parallel import World
from trainkit.errors import CheckpointSaveError
from trainkit.evaluation import Validation
from trainkit.metrics import EvaluationRecord

WAIT_S = 60


class Gate(Callback):
    """Let the writing thread begin only when a later step is done; keep what is told."""

    def __init__(self, opens_after: int = 0):
        self.opens_after = opens_after
        self.is_open = threading.Event()
        self.saved_by_step: dict[int, int] = {}
        self.step = 0

    def on_step_end(self, record):
        self.step = record.step
        if record.step >= self.opens_after:
            self.is_open.set()

    def write_extras(self, folder):
        assert self.is_open.wait(WAIT_S), "training waits for the checkpoint"

    def on_checkpoint_saved(self, step, path):
        self.saved_by_step[step] = self.step


def saved(folder, step: int) -> tuple[dict, list]:
    """Return the weights and the optimizer's tensors of a checkpoint."""
    path = folder / f"step_{step:08d}"
    state = torch.load(path / "optimizer.pt", weights_only=True)["optimizer"]
    return load_file(path / "model.safetensors"), [tensor for each in state.values() for tensor in each.values()]


def train(folder, gate: Gate, **settings) -> None:
    manager = CheckpointManager(folder, Retention(keep_last=0))
    make_trainer(World(), make_settings(6, **settings), dropout=0.3, checkpoints=manager, callbacks=[gate]).fit()


def test_steps_are_taken_while_a_checkpoint_is_written_and_do_not_show_in_it(tmp_path):
    gate = Gate(opens_after=5)
    train(tmp_path / "background", gate, save_every=3)
    train(tmp_path / "line", Gate(), save_every=3, save_in_background=False)
    assert gate.saved_by_step[3] >= 5, "step 5 was done before step 3 was durable"
    for step in (3, 6):
        (weights, moments), (expected_weights, expected_moments) = (
            saved(tmp_path / place, step) for place in ("background", "line")
        )
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected_weights.items())
        assert all(torch.equal(a, b) for a, b in zip(moments, expected_moments, strict=True))


def test_a_save_does_not_overwrite_what_the_one_before_is_still_writing(tmp_path, monkeypatch):
    write = Snapshot.write

    def write_late(snapshot, folder):
        time.sleep(0.2)  # the steps of a toy take milliseconds
        write(snapshot, folder)

    monkeypatch.setattr(Snapshot, "write", write_late)
    train(tmp_path / "background", Gate(), save_every=1)
    train(tmp_path / "line", Gate(), save_every=1, save_in_background=False)
    for step in range(1, 7):
        found, expected = (saved(tmp_path / place, step)[0] for place in ("background", "line"))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), step


def test_in_line_no_step_is_taken_before_the_checkpoint_is_durable(tmp_path):
    gate = Gate()
    train(tmp_path, gate, save_every=2, save_in_background=False)
    assert gate.saved_by_step == {2: 2, 4: 4, 6: 6}


def test_a_failure_in_the_background_ends_the_run_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    rename = storage.rename

    def fail(source, target):
        if target.name == "step_00000004":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(storage, "rename", fail)
    with pytest.raises(CheckpointSaveError, match=r"No space left.*step_00000002 is intact"):
        train(tmp_path, Gate(), save_every=2)
    assert CheckpointManager(tmp_path).latest().name == "step_00000002"


def test_a_copy_does_not_follow_its_original_and_its_memory_serves_again():
    host = HostCopies()
    weights = torch.arange(4.0)
    value = {"weights": weights, "list": [weights[:2], {"name": "a"}], "none": None}
    first = host.copy(value)
    weights += 1
    value["list"][1]["name"] = "b"
    assert first["weights"].tolist() == [0, 1, 2, 3]
    assert first["list"][0].tolist() == [0, 1]
    assert first["list"][1] == {"name": "a"}
    second = host.copy(value)
    assert second["weights"].data_ptr() == first["weights"].data_ptr()
    assert second["weights"].tolist() == [1, 2, 3, 4]
    host.copy({"other": weights})
    assert list(host._kept) == ["/'other'"], "memory that is not asked for is let go"


def test_the_best_checkpoint_is_saved_at_once_and_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 1.5, 6: 2.0}
    manager = CheckpointManager(tmp_path, Retention(keep_last=1, keep_best=1))
    validation = Validation(list, every=1, max_batches=1)
    trainer = make_trainer(World(), make_settings(6), checkpoints=manager, validation=validation)
    trainer.evaluator.check_not_empty = lambda: None
    trainer.evaluator.evaluate = lambda _model, step, _stop: EvaluationRecord(step, losses[step], 1.0, 1, {})
    trainer.fit()
    assert [path.name for path in manager.list_checkpoints()] == ["step_00000002", "step_00000006"]
    assert manager.best().name == "step_00000002"
    assert manager.latest().name == "step_00000006"
    assert manager.scores() == {2: 1.0, 6: 2.0}
