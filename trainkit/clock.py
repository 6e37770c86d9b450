"""Time the parts of a step: by the device's own clock on a GPU, whose work the host does not wait for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

Pause = Literal["checkpoint", "evaluation"]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Say what a step's time went into [ms]."""

    step_ms: float
    """All of the step, waiting for data included, evaluation and saving not."""
    data_wait_ms: float
    """Waiting for the batch source of rank 0."""
    forward_backward_ms: float
    optimizer_ms: float
    """Clipping and the update."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: of the host, and of the device's queue."""

    host_s: float
    event: torch.cuda.Event | None

    def ms_since(self, earlier: "Mark") -> float:
        """Return the time between two marks; on a GPU both must have been reached."""
        if self.event is not None and earlier.event is not None:
            return earlier.event.elapsed_time(self.event)
        return (self.host_s - earlier.host_s) * 1000.0


@dataclass(frozen=True, slots=True)
class StepMarks:
    """The moments of one step."""

    start: Mark
    fetched: Mark
    backward: Mark
    end: Mark

    def read(self) -> StepTimes:
        """Return the times between them; on a GPU the step must be over."""
        return StepTimes(
            step_ms=self.end.ms_since(self.start),
            data_wait_ms=(self.fetched.host_s - self.start.host_s) * 1000.0,
            forward_backward_ms=self.backward.ms_since(self.fetched),
            optimizer_ms=self.end.ms_since(self.backward),
        )


class StepClock:
    """Mark the moments of each step, and add up what is not a step: evaluating, saving."""

    def __init__(self, device: torch.device):
        self.is_cuda = device.type == "cuda"
        self.data_wait_share = 0.0
        self._steps, self._all_steps_ms, self._all_waits_ms = 0, 0.0, 0.0
        self._pauses_ms: dict[Pause, float] = {"checkpoint": 0.0, "evaluation": 0.0}
        self._session_began_s = time.perf_counter()
        self._marks: list[Mark] = []

    def start_session(self, elapsed_s: float) -> None:
        """Begin counting; earlier sessions of the run took `elapsed_s`."""
        self._session_began_s = time.perf_counter() - elapsed_s

    def elapsed_s(self) -> float:
        """Return the seconds since the run began, earlier sessions included."""
        return time.perf_counter() - self._session_began_s

    def start_step(self) -> None:
        """Mark the beginning of a step, before its data is fetched."""
        self._marks.clear()
        self.mark()

    def mark(self) -> None:
        """Mark the end of the step's next part: fetching, then forward and backward."""
        event = None
        if self.is_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self._marks.append(Mark(time.perf_counter(), event))

    def end_step(self) -> StepMarks:
        """Mark the end of the step and return its moments."""
        self.mark()
        return StepMarks(*self._marks)

    def count(self, times: StepTimes) -> None:
        """Add a step to the share of waiting; the first does not count: files are opened, nothing was read ahead."""
        self._steps += 1
        if self._steps > 1:
            self._all_steps_ms += times.step_ms
            self._all_waits_ms += times.data_wait_ms
            self.data_wait_share = self._all_waits_ms / max(self._all_steps_ms, 1e-9)

    @contextmanager
    def pause(self, kind: Pause) -> Iterator[None]:
        """Count the time inside the block as time in which training stood still."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._pauses_ms[kind] += (time.perf_counter() - began_s) * 1000.0

    def pauses_ms(self) -> dict[Pause, float]:
        """Return how long training stood still since `forget_pauses` [ms]."""
        return dict(self._pauses_ms)

    def forget_pauses(self) -> None:
        """Begin to add up pauses anew."""
        self._pauses_ms = dict.fromkeys(self._pauses_ms, 0.0)
