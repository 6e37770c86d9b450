"""Compute learning rates as pure functions of the step being taken.

Steps count from 1, so the first of W warm-up steps has max / W and never 0: no step is wasted. Nothing here has state;
a resumed run asks for the rate of its next step and gets what the uninterrupted run would have had.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

ScheduleName = Literal["cosine", "constant", "warmup_stable_decay"]


class LearningRateOfStep(Protocol):
    """What a trainer asks of a schedule; Schedule is one."""

    @property
    def max_steps(self) -> int:
        """Return the step at which training ends."""
        ...

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """Map the step being taken (1 .. max_steps) to its learning rate.

        cosine                 /‾‾\\__     warm-up, then half a cosine down to the minimum
        constant               /‾‾‾‾‾     warm-up, then the maximum
        warmup_stable_decay    /‾‾‾‾\\     warm-up, the maximum, then a line down over the last `decay_steps`

    Raises ValueError for counts that do not fit into max_steps, or a minimum above the maximum.
    """

    name: ScheduleName
    max_learning_rate: float
    max_steps: int
    min_learning_rate: float = 0.0
    warmup_steps: int = 0
    decay_steps: int = 0
    """Only for warmup_stable_decay."""

    def __post_init__(self):
        if self.name not in ("cosine", "constant", "warmup_stable_decay"):
            raise ValueError(f"unknown schedule {self.name!r}: use cosine, constant or warmup_stable_decay")
        if not 0 <= self.min_learning_rate <= self.max_learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} must lie between 0 and max_learning_rate "
                f"{self.max_learning_rate}"
            )
        if min(self.warmup_steps, self.decay_steps) < 0 or self.warmup_steps + self.decay_steps > self.max_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} + decay_steps {self.decay_steps} must fit into max_steps "
                f"{self.max_steps}: shorten them or train longer"
            )

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1; past max_steps the last rate is kept."""
        assert step >= 1, "steps count from 1"
        if step < self.warmup_steps:
            return self.max_learning_rate * step / self.warmup_steps
        remaining = self._remaining_fraction(min(step, self.max_steps))
        return self.min_learning_rate + (self.max_learning_rate - self.min_learning_rate) * remaining

    def _remaining_fraction(self, step: int) -> float:
        """Return 1 where the rate is at its maximum, 0 where it has come down to the minimum."""
        if self.name == "cosine":
            span = max(1, self.max_steps - self.warmup_steps)
            return 0.5 * (1.0 + math.cos(math.pi * max(0, step - self.warmup_steps) / span))
        if self.name == "warmup_stable_decay" and self.decay_steps:
            return min(1.0, (self.max_steps - step) / self.decay_steps)
        return 1.0
