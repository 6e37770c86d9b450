"""Where the time of training steps goes: marks at their boundaries, and the named ranges between.

On a GPU both are events in its queue, so that nothing waits for it and its own time is measured.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from trainkit.callbacks import Callback
from trainkit.clock import Mark


def make_mark(device: torch.device) -> Mark:
    """Return the present moment of the host, and of the device's queue."""
    event = None
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record()
    return Mark(time.perf_counter(), event)


@dataclass(slots=True)
class StepTimer:
    """Marks the beginnings of steps, and hears of ranges (it is a Recorder of profiling/nvtx.py)."""

    device: torch.device
    _starts: list[Mark] = field(default_factory=list)
    _open: list[tuple[str, Mark]] = field(default_factory=list)
    _spans: list[tuple[str, Mark, Mark]] = field(default_factory=list)

    def mark_step(self) -> None:
        """Note that a step ends and another begins."""
        self._starts.append(make_mark(self.device))

    def push(self, name: str) -> None:
        """Begin a range."""
        self._open.append((name, make_mark(self.device)))

    def pop(self) -> None:
        """End it."""
        name, start = self._open.pop()
        self._spans.append((name, start, make_mark(self.device)))

    def take(self) -> "StepTimes":
        """Return the steps between the marks made so far, and forget them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        steps_ms = [later.ms_since(earlier) for earlier, later in zip(self._starts, self._starts[1:], strict=False)]
        parts_ms: dict[str, float] = {}
        for name, start, end in self._spans:
            parts_ms[name] = parts_ms.get(name, 0.0) + end.ms_since(start)
        self._starts, self._open, self._spans = [], [], []
        return StepTimes(steps_ms, parts_ms)


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Consecutive steps."""

    steps_ms: Sequence[float]
    parts_ms: dict[str, float]
    """Sum of each range over all of these steps."""

    @property
    def median_ms(self) -> float:
        """Median step."""
        return statistics.median(self.steps_ms)


class MarkSteps(Callback):
    """Marks the steps of a Trainer; the last one ends when training does."""

    def __init__(self, timer: StepTimer) -> None:
        self.timer = timer

    def on_step_start(self, step: int) -> None:
        """Mark the beginning."""
        self.timer.mark_step()

    def on_train_end(self, step: int) -> None:
        """Mark the end."""
        self.timer.mark_step()


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the 10th and 90th percentile (nearest rank)."""
    ordered = sorted(values)
    return ordered[round(0.1 * (len(ordered) - 1))], ordered[round(0.9 * (len(ordered) - 1))]
