"""Kill a training run at every write of a save in turn: this process has imported torch, and forks the victims."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from trainkit_workers import make_settings, make_trainer, weights_of

from trainkit.checkpointing import storage
from trainkit.checkpointing.finding import find_checkpoint
from trainkit.checkpointing.manager import CheckpointManager, checkpoint_step
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World

WRITERS = ("write_file", "write_tensors", "write_values")
OPERATIONS = ("create_folder", *WRITERS, "sync_file", "sync_folder", "rename", "point_link", "remove_folder")
STEPS = 5


def train(folder: Path, max_steps: int) -> dict[str, torch.Tensor]:
    """Train to `max_steps`, saving every step, from what is saved in `folder`; return the weights."""
    manager = CheckpointManager(folder / "run" / "checkpoints", Retention(keep_last=2), run=folder / "run")
    manager.run.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(World(), make_settings(STEPS, save_every=1), dropout=0.3, checkpoints=manager)
    if manager.folder.exists():
        trainer.resume(find_checkpoint(manager.folder))
    trainer.max_steps = max_steps
    trainer.fit()
    return weights_of(trainer)


def kill_at(number: int, is_halfway: bool) -> None:
    """Kill this process, as by kill -9, at its `number`-th operation: before it, or when it is half done."""
    count = 0

    def deadly(operation: Callable, name: str) -> Callable:
        def run(*arguments):
            nonlocal count
            count += 1
            if count == number:
                if is_halfway:
                    leave_half(operation, name, arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments)

        return run

    for name in OPERATIONS:
        setattr(storage, name, deadly(vars(storage)[name], name))


def leave_half(operation: Callable, name: str, arguments: tuple) -> None:
    """Write half a file, or delete half a folder; other operations are atomic, and done."""
    if name == "remove_folder":
        for path in sorted(arguments[0].rglob("*"))[::2]:
            if path.is_file():
                path.unlink()
        return
    operation(*arguments)
    if name in WRITERS:
        os.truncate(arguments[0], arguments[0].stat().st_size // 2)


def die_at_every_point(folder: str, is_halfway: bool) -> None:
    """For each operation: copy a run of three steps, train it on and die there, resume it; leave the results behind."""
    torch.set_num_threads(1)
    place = Path(folder)
    os.fsync = lambda _descriptor: None
    torch.save(in_a_fork(lambda: train(place / "whole", STEPS), place), place / "whole.pt")
    in_a_fork(lambda: train(place / "template", 3), place)
    results = []
    for number in range(1, 1000):
        run = place / f"died_at_{number}"
        shutil.copytree(place / "template", run, symlinks=True)
        child = os.fork()
        if child == 0:
            kill_at(number, is_halfway)
            train(run, 4)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break  # it had no such operation left
        is_latest_there = (run / "run" / "checkpoints" / "latest").exists()  # moved only to what is there
        found = find_checkpoint(run / "run")
        weights = in_a_fork(lambda run=run: train(run, STEPS), place)
        leftovers = [path.name for path in (run / "run" / "checkpoints").glob(".*")]
        result = {"code": code, "step": checkpoint_step(found), "weights": weights, "leftovers": leftovers}
        results.append(result | {"is_latest_there": is_latest_there})
        shutil.rmtree(run)
    torch.save(results, place / "results.pt")


def in_a_fork(function: Callable, place: Path) -> dict:
    """Call a function that trains in a process of its own: a process that trained may not fork any more."""
    child = os.fork()
    if child == 0:
        torch.save(function(), place / "value.pt")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return torch.load(place / "value.pt")
