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
from trainkit_workers import train_and_exit, train_until_signal

from trainkit.checkpointing.manager import CheckpointManager, checkpoint_step
from trainkit.signals import StopSignals

MAX_STEPS = 60


def ignore_interrupts_and_train(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a process started in the background inherits
    train_and_exit(folder, MAX_STEPS)


def train_with_slow_saves(folder: str) -> None:
    publish = CheckpointManager._publish

    def publish_slowly(self: CheckpointManager, temporary: Path, final: Path) -> None:
        (Path(folder) / "saving").touch()
        time.sleep(30)
        publish(self, temporary, final)

    CheckpointManager._publish = publish_slowly
    train_and_exit(folder, MAX_STEPS)


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


@pytest.mark.parametrize(
    ("number", "worker", "arguments"),
    [
        (signal.SIGTERM, train_and_exit, (MAX_STEPS,)),
        (signal.SIGINT, ignore_interrupts_and_train, ()),
    ],
)
def test_signal_saves_and_the_resumed_run_ends_with_the_same_weights(
    number, worker, arguments, spawn, tmp_path, whole_run
):
    process = spawn(worker, str(tmp_path), *arguments)
    wait_for(tmp_path / "training")
    os.kill(process.pid, number)
    time.sleep(0.01)  # two at once would arrive as one
    os.kill(process.pid, number)  # launchers double signals: within a second that is one wish
    process.join(60)
    assert process.exitcode == 128 + number
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


@pytest.mark.slow
def test_signal_to_the_launcher_lets_both_workers_save_and_says_how_to_resume(tmp_path):
    command = [sys.executable, trainkit_workers.__file__, str(tmp_path), "2000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "training")
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    latest = CheckpointManager(tmp_path / "checkpoints").latest()
    assert re.search(rf"stopped by SIGTERM after step \d+: saved .*{latest.name}; to resume: resume --pl", errors)
    assert "Traceback" not in errors


def is_running(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie has ended, whoever should collect it


@pytest.mark.slow
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
