"""A trace of some steps for chrome://tracing or ui.perfetto.dev: every operation, and the named ranges around them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from profiling.nvtx import Level, recorded_by

if TYPE_CHECKING:
    from torch.profiler import profile, record_function

QUIET = "99"


class TraceRecorder:
    """Shows named ranges in the trace of torch's profiler."""

    def __init__(self) -> None:
        self._open: list[record_function] = []

    def push(self, name: str) -> None:
        """Begin a range."""
        from torch.profiler import record_function

        self._open.append(record_function(name))
        self._open[-1].__enter__()

    def pop(self) -> None:
        """End it."""
        self._open.pop().__exit__(None, None, None)


def make_profiler(has_memory: bool = False) -> "profile":
    """Return torch's profiler for the processor, and for the GPU where there is one; it is not started."""
    # Its engine reports to standard error that it starts, stops, and finds no GPU; this must be set before it does.
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities, profile_memory=has_memory, acc_events=True)


@contextmanager
def traced(finest: Level = "coarse") -> "Iterator[profile]":
    """Profile the block, with named ranges up to `finest`; afterwards the profiler can write its trace."""
    with make_profiler() as profiler, recorded_by(TraceRecorder(), finest):
        yield profiler
