"""Start the processes of one host, and bring their result, or the first error, back to the caller.

Three ways in, one way to call it: under torchrun this process joins as the rank it was given; with one process the
worker runs right here; otherwise torch's elastic launcher starts local processes. A worker is a function of the
module level (it is sent by name) and is called as `worker(world, *arguments)`.
"""

import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from threading import Thread
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainkit.distributed.parallel import (
    BackendName,
    DeviceName,
    World,
    choose_device,
    is_started_by_torchrun,
    process_group,
    world_from_environment,
)
from trainkit.errors import WorkerError
from trainkit.signals import STOP_SIGNALS

Worker = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Say how many processes to start on this host and how they talk to one another."""

    nproc_per_node: int = 1
    backend: BackendName = "auto"
    """auto is nccl on GPUs and gloo on CPUs."""
    device: DeviceName = "auto"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a worker process left behind: its return value, or its exception and when that was raised."""

    value: Any = None
    error: BaseException | None = None
    time_s: float = 0.0


def launch(worker: Worker, *arguments: Any, settings: LaunchSettings | None = None) -> Any:
    """Run `worker(world, *arguments)` on every rank and return rank 0's value (under torchrun: this rank's).

    The exception of the rank that failed first is raised here, with the worker's traceback as a note.
    Raises ValueError if the device asked for is missing, WorkerError if a worker was killed,
    SystemExit(130 or 143) if workers were interrupted before they could save.
    """
    settings = settings or LaunchSettings()
    if is_started_by_torchrun():
        world = world_from_environment(settings.device)
        with process_group(world, settings.backend):
            return worker(world, *arguments)
    choose_device(settings.device, settings.nproc_per_node - 1)
    if settings.nproc_per_node == 1:
        return worker(World(device=choose_device(settings.device)), *arguments)
    with tempfile.TemporaryDirectory(prefix="trainkit_") as folder:
        return _launch_local(worker, arguments, settings, Path(folder))


def _launch_local(worker: Worker, arguments: tuple, settings: LaunchSettings, folder: Path) -> Any:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.nproc_per_node,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        # The agent would give workers 30 seconds and then kill them; instead we pass these two on and let them save.
        signals_to_handle="SIGQUIT",
    )
    with _forwarded_signals() as received, _quiet_agent():
        try:
            elastic_launch(config, _run_worker)(worker, arguments, settings, str(folder))
        except ChildFailedError as failure:
            raise _explain(failure, _read_outcomes(folder), received) from None
    return _read_outcomes(folder)[0].value


def _run_worker(worker: Worker, arguments: tuple, settings: LaunchSettings, folder: str) -> None:
    """Be one rank: join, work, and leave the outcome in a file, before the others can notice that we are gone."""
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one host: do not depend on its name being resolvable
    rank, launcher = int(os.environ["RANK"]), os.getppid()
    outcome_path = Path(folder) / f"outcome_{rank}.pickle"
    try:
        world = world_from_environment(settings.device)
        with process_group(world, settings.backend):
            try:
                _write_outcome(outcome_path, Outcome(value=worker(world, *arguments)))
                _leave_once_orphaned(launcher, exit_code=0)
            except BaseException as error:
                _write_outcome(outcome_path, _failed(error, rank))
                _leave_once_orphaned(launcher, exit_code=1)
                raise
    except BaseException as error:
        if not outcome_path.exists():
            _write_outcome(outcome_path, _failed(error, rank))
        sys.exit(1)


def _leave_once_orphaned(launcher: int, exit_code: int) -> None:
    """End as soon as the launcher is gone: parting from the other ranks would wait for its store for ever.

    A launcher that is being killed may still be our parent when its death has reached us as a signal, so somebody has
    to go on looking.
    """

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.1)
        os._exit(exit_code)

    if os.getppid() != launcher:
        os._exit(exit_code)
    Thread(target=watch, daemon=True).start()


def _failed(error: BaseException, rank: int) -> Outcome:
    """Make the exception fit to travel; one that cannot be rebuilt elsewhere travels as its words."""
    raised_at_s, trace = time.time(), traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except (pickle.PickleError, TypeError, AttributeError, ImportError):
        error = WorkerError(f"{type(error).__name__}: {error}")
    error.add_note(f"raised in the worker of rank {rank}:\n{trace}")
    return Outcome(error=error, time_s=raised_at_s)


def _write_outcome(path: Path, outcome: Outcome) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(pickle.dumps(outcome))
    temporary.replace(path)


def _read_outcomes(folder: Path) -> dict[int, Outcome]:
    """Read what the workers left in our own temporary folder, by rank."""
    paths = folder.glob("outcome_*.pickle")
    return {int(path.stem.removeprefix("outcome_")): pickle.loads(path.read_bytes()) for path in paths}


def _explain(failure: ChildFailedError, outcomes: dict[int, Outcome], received: list[int]) -> BaseException:
    """Choose what to raise: the earliest exception is the cause, later ones are ranks that lost their partner."""
    errors = [outcome for outcome in outcomes.values() if outcome.error is not None]
    rank, process = failure.get_first_failure()
    if received and (not errors or process.exitcode in (128 + received[0], -received[0])):
        return SystemExit(128 + received[0])
    if process.exitcode < 0 and rank not in outcomes:
        return WorkerError(
            f"the worker of rank {rank} was killed by {process.signal_name()}"
            + (": the machine may have run out of memory" if process.exitcode == -signal.SIGKILL else "")
        )
    if errors:
        return min(errors, key=lambda outcome: outcome.time_s).error
    return WorkerError(f"the worker of rank {rank} ended with exit code {process.exitcode} and no message")


@contextmanager
def _forwarded_signals() -> Iterator[list[int]]:
    """Pass stop signals on to the workers, who decide, and keep waiting for them; yields those received."""
    received: list[int] = []

    def forward(signal_number: int, _frame: object) -> None:
        received.append(signal_number)
        for process in active_children():
            os.kill(process.pid, signal_number)

    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Silence the agent's own account of a failure: the worker's exception says it better."""
    loggers = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
