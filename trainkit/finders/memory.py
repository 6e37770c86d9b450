"""Find out whether something fits into memory by doing it in a child process, which may die of it."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from trainkit.hardware import peak_memory_mb

_POLL_S = 0.02
_CPU_SHARE = 0.9
_GPU_SHARE = 0.95
_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one attempt."""

    fits: bool
    peak_mb: float | None
    """The most memory it held; unknown if it was killed."""
    value: Any = None
    """What the work returned; None if it did not fit."""


def try_in_child(
    work: Callable[..., Any], arguments: tuple, limit_mb: float, device: torch.device | None = None
) -> Trial:
    """Run `work(*arguments)` in a process of its own, and say whether it stayed within `limit_mb`.

    On a GPU the limit is that of the device's memory, otherwise that of the process. `work` is a function of the module
    level. An exception other than a lack of memory is raised here.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    device = device or torch.device("cpu")
    process = context.Process(target=_be_child, args=(sender, work, arguments, limit_mb, device), daemon=True)
    process.start()
    sender.close()
    try:
        return _await(process, receiver, limit_mb if device.type == "cpu" else float("inf"))
    finally:
        process.kill()
        process.join()


def _await(process: Any, receiver: Connection, limit_mb: float) -> Trial:
    highest_mb = 0.0
    while not receiver.poll(_POLL_S):
        highest_mb = max(highest_mb, resident_mb(process.pid))
        if highest_mb > limit_mb:
            return Trial(False, highest_mb)
    try:
        outcome = receiver.recv()
    except EOFError:  # gone without a word: killed, most likely by the system, for its memory
        process.join()
        if process.exitcode == -9:
            return Trial(False, highest_mb or None)
        raise RuntimeError(f"the trial process ended with exit code {process.exitcode} and no message") from None
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome if outcome.fits and outcome.peak_mb <= limit_mb else Trial(False, outcome.peak_mb)


def _be_child(
    sender: Connection, work: Callable[..., Any], arguments: tuple, limit_mb: float, device: torch.device
) -> None:
    with suppress(OSError):  # if the system must kill somebody, it shall be this process
        Path("/proc/self/oom_score_adj").write_text("1000")
    if device.type == "cuda":
        total_mb = torch.cuda.get_device_properties(device).total_memory / 1e6
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb / total_mb), device)
    try:
        value = work(*arguments)
        sender.send(Trial(True, peak_memory_mb(device), value))
    except (MemoryError, torch.OutOfMemoryError):
        sender.send(Trial(False, peak_memory_mb(device)))
    except RuntimeError as error:  # torch reports a lack of main memory as one of these
        lacks_memory = any(words in str(error) for words in _CPU_OUT_OF_MEMORY)
        sender.send(Trial(False, peak_memory_mb(device)) if lacks_memory else error)
    except ValueError as error:
        sender.send(error)


def resident_mb(pid: int) -> float:
    """Return the main memory a process holds [MB]; 0 if it is gone, or the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_to_use_mb(device: torch.device) -> float:
    """Return how much memory a trial may take: what is free now, less a reserve [MB]."""
    if device.type == "cuda":
        return _GPU_SHARE * torch.cuda.mem_get_info(device)[0] / 1e6
    return _CPU_SHARE * min(_available_mb(), _cgroup_free_mb())


def _available_mb() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024 / 1e6
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cgroup_free_mb() -> float:
    """Return what a container's limit leaves, infinity without one."""
    try:
        root = Path("/sys/fs/cgroup")
        return (int((root / "memory.max").read_text()) - int((root / "memory.current").read_text())) / 1e6
    except (OSError, ValueError):  # no cgroups of this kind, or "max"
        return float("inf")
