"""A signal ends a run after its step, saved; the continuation ends where the uninterrupted run does."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import trainkit_workers
from trainkit_workers import make_settings, make_trainer, train_and_exit, train_until_signal

from trainkit.callbacks import Callback
from trainkit.checkpointing.finding import find_checkpoint, verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager, checkpoint_step
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World
from trainkit.evaluation import Validation
from trainkit.settings import TrainResult
from trainkit.signals import RESUME_EXIT_CODE, Interrupted, StopSignals

MAX_STEPS = 60


def ignore_interrupts_and_train(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a process started in the background inherits
    train_and_exit(folder, MAX_STEPS)


def train_with_slow_saves(folder: str) -> None:
    publish = CheckpointManager._publish

    def publish_slowly(self: CheckpointManager, temporary: Path, final: Path, score: float | None) -> None:
        (Path(folder) / "saving").touch()
        time.sleep(30)
        publish(self, temporary, final, score)

    CheckpointManager._publish = publish_slowly
    train_and_exit(folder, MAX_STEPS)


class Losses(Callback):
    """Keep what evaluations found."""

    def __init__(self):
        self.by_step: dict[int, float] = {}

    def on_evaluation_end(self, record):
        self.by_step[record.step] = record.loss


def train_with_evaluations(folder: Path, *callbacks: Callback, make_batches=None) -> int:
    """Train four steps and evaluate after every second, going on from what is saved."""
    batches = make_batches or (lambda: [trainkit_workers.global_batch(step) for step in (11, 12)])
    trainer = make_trainer(
        World(),
        make_settings(max_steps=4, save_every=1),
        checkpoints=CheckpointManager(folder / "checkpoints", Retention(keep_best=1)),
        callbacks=callbacks,
        validation=Validation(batches, every=2, max_batches=1000),
    )
    if (folder / "checkpoints").exists():
        trainer.resume(find_checkpoint(folder))
    return trainer.fit().exit_code


def wait_endlessly(folder: str) -> None:
    (Path(folder) / "endless").touch()
    while True:
        time.sleep(1)


def train_with_an_endless_evaluation(folder: str) -> None:
    def make_batches():
        yield trainkit_workers.global_batch(11)
        wait_endlessly(folder)

    sys.exit(train_with_evaluations(Path(folder), make_batches=make_batches))


def train_with_an_endless_compilation(folder: str) -> None:
    def compile_endlessly(_graph: object, _inputs: object) -> None:
        wait_endlessly(folder)

    torch.compile, compile_model = lambda model: compile_model(model, backend=compile_endlessly), torch.compile
    manager = CheckpointManager(Path(folder))
    sys.exit(make_trainer(World(), make_settings(compile=True), checkpoints=manager).fit().exit_code)


def evaluate_and_stop_one_rank(world: World) -> str:
    """Evaluate on two ranks; rank 1 is told to stop in its second batch."""

    def make_batches():
        yield trainkit_workers.global_batch(11)
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield trainkit_workers.global_batch(12)

    trainer = make_trainer(world, make_settings(), validation=Validation(make_batches, every=1, max_batches=9))
    with trainer.stop:
        try:
            trainer.evaluate()
        except Interrupted as interruption:
            return interruption.signal.name
    return "not interrupted"


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path.name} never appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainkit_workers.time.sleep, sleep = lambda _seconds: None, trainkit_workers.time.sleep
    threads = torch.get_num_threads()
    try:
        assert train_until_signal(str(folder), MAX_STEPS) == 0
    finally:
        trainkit_workers.time.sleep = sleep
        torch.set_num_threads(threads)
    return torch.load(folder / "weights.pt")


def assert_saved_early(folder: Path) -> None:
    step = checkpoint_step(CheckpointManager(folder / "checkpoints").latest())
    assert 5 <= step < MAX_STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "worker", "arguments", "exit_code"),
    [
        (signal.SIGTERM, train_and_exit, (MAX_STEPS,), RESUME_EXIT_CODE),
        (signal.SIGUSR1, train_and_exit, (MAX_STEPS,), RESUME_EXIT_CODE),
        (signal.SIGINT, ignore_interrupts_and_train, (), 130),
    ],
)
def test_signal_saves_and_the_resumed_run_ends_with_the_same_weights(
    number, worker, arguments, exit_code, spawn, tmp_path, whole_run
):
    process = spawn(worker, str(tmp_path), *arguments)
    wait_for(tmp_path / "training")
    os.kill(process.pid, number)
    time.sleep(0.01)  # two at once would arrive as one
    os.kill(process.pid, number)  # launchers double signals: within a second that is one wish
    process.join(60)
    assert process.exitcode == exit_code
    assert_saved_early(tmp_path)

    process = spawn(train_and_exit, str(tmp_path), MAX_STEPS)
    process.join(60)
    assert process.exitcode == 0
    for name, tensor in torch.load(tmp_path / "weights.pt").items():
        assert torch.equal(tensor, whole_run[name]), name


def test_second_signal_after_a_second_aborts_at_once(spawn, tmp_path):
    process = spawn(train_with_slow_saves, str(tmp_path))
    wait_for(tmp_path / "training")
    os.kill(process.pid, signal.SIGTERM)
    wait_for(tmp_path / "saving")
    time.sleep(1.1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 128 + signal.SIGTERM
    assert CheckpointManager(tmp_path / "checkpoints").latest() is None


@pytest.mark.slow
def test_a_termination_after_its_warning_does_not_abort_the_save_and_a_second_one_does(spawn, tmp_path):
    process = spawn(train_with_slow_saves, str(tmp_path))
    wait_for(tmp_path / "training")
    os.kill(process.pid, signal.SIGUSR1)
    wait_for(tmp_path / "saving")
    time.sleep(1.1)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(process.pid, number)
        process.join(0.3)
        assert process.is_alive(), number
    time.sleep(1.1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 128 + signal.SIGTERM


@pytest.mark.parametrize("worker", [train_with_an_endless_evaluation, train_with_an_endless_compilation])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_does_not_wait_for_an_evaluation_or_a_compilation(worker, number, spawn, tmp_path):
    process = spawn(worker, str(tmp_path))
    wait_for(tmp_path / "endless")
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == RESUME_EXIT_CODE
    checkpoint = find_checkpoint(tmp_path)
    verify_checkpoint(checkpoint)
    assert checkpoint_step(checkpoint) == (2 if worker is train_with_an_endless_evaluation else 0)


def test_an_evaluation_that_a_signal_prevented_is_made_up_for_and_the_run_ends_as_if_it_never_stopped(tmp_path, spawn):
    process = spawn(train_with_an_endless_evaluation, str(tmp_path))
    wait_for(tmp_path / "endless")
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    expected, found = Losses(), Losses()
    train_with_evaluations(tmp_path / "whole", expected)
    assert sorted(expected.by_step) == [2, 4]
    train_with_evaluations(tmp_path, found)
    assert found.by_step == expected.by_step
    manager = CheckpointManager(tmp_path / "checkpoints")
    assert manager.scores() == CheckpointManager(tmp_path / "whole" / "checkpoints").scores()


def test_ranks_leave_an_evaluation_together_when_one_of_them_was_told_to(tmp_path, run_ranks):
    assert run_ranks(evaluate_and_stop_one_rank, 2) == ["SIGTERM", "SIGTERM"]


@pytest.mark.parametrize(
    ("stop_signal", "is_resumable", "exit_code"),
    [
        (None, True, 0),
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, True, 75),
        (signal.SIGUSR1, True, 75),
        (signal.SIGTERM, False, 143),
    ],
)
def test_the_exit_code_asks_to_be_resumed_only_if_that_is_wanted_and_possible(stop_signal, is_resumable, exit_code):
    assert TrainResult(3, None, None, stop_signal, is_resumable).exit_code == exit_code


def test_a_signal_that_came_before_an_interruptible_block_ends_it_at_its_beginning():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted), stop.interruptible():
            pytest.fail("the block was entered")
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_handlers_outlast_a_stop_so_that_a_late_repeat_does_not_kill_and_are_put_back_otherwise():
    reached_the_old_handler = []
    original = signal.signal(signal.SIGTERM, lambda number, _frame: reached_the_old_handler.append(number))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with StopSignals():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert reached_the_old_handler == [signal.SIGTERM]
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        assert reached_the_old_handler == [signal.SIGTERM], "the repeat must not reach it"
    finally:
        signal.signal(signal.SIGTERM, original)
        signal.signal(signal.SIGINT, interrupt)


@pytest.mark.long
def test_signal_to_the_launcher_lets_both_workers_save_and_says_how_to_resume(tmp_path):
    command = [sys.executable, trainkit_workers.__file__, str(tmp_path), "2000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "training")
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == RESUME_EXIT_CODE, errors
    latest = CheckpointManager(tmp_path / "checkpoints").latest()
    assert re.search(rf"stopped by SIGTERM after step \d+: saved .*{latest.name}; to resume: resume --pl", errors)
    assert "Traceback" not in errors


def is_running(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie has ended, whoever should collect it


@pytest.mark.long
def test_workers_save_and_end_when_the_launcher_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, trainkit_workers.__file__, str(tmp_path), "2000"], stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "training")
    children = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2, "two workers"
    process.kill()
    process.wait()
    deadline_s = time.monotonic() + 30
    while (running := [child for child in children if is_running(child)]) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for child in running:
        os.kill(child, signal.SIGKILL)
    assert not running, f"{len(running)} of {len(children)} processes hang"
    assert CheckpointManager(tmp_path / "checkpoints").latest() is not None
