"""The learning-rate range test (Smith 2017, arXiv 1506.01186): raise the rate step by step and watch the loss.

Too small a rate changes nothing, a good one makes the loss fall, too large a one makes it explode. One short run, whose
model is thrown away, shows all three.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from trainkit.callbacks import Callback
from trainkit.errors import NonFiniteLoss
from trainkit.metrics import StepRecord
from trainkit.trainer import Trainer

_REACH_STEPS = 4
_DIVERGED = 1.5
_SETTLING_STEPS = 10


@dataclass(frozen=True, slots=True)
class LearningRateSweep:
    """A schedule that multiplies the rate by the same factor in each step, from `low` to `high`."""

    low: float
    high: float
    max_steps: int

    def __post_init__(self):
        if not 0 < self.low < self.high or self.max_steps < 2 * _SETTLING_STEPS:
            raise ValueError(
                f"a sweep from {self.low:g} to {self.high:g} in {self.max_steps} steps: rates must be above 0 and "
                f"rise, in at least {2 * _SETTLING_STEPS} steps"
            )

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        return self.low * (self.high / self.low) ** ((step - 1) / (self.max_steps - 1))


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a range test saw."""

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    steepest_rate: float | None
    """Where the smoothed loss falls fastest, over the logarithm of the rate; None if it never fell."""
    lowest_rate: float | None
    """Where the smoothed loss is lowest."""
    diverged_rate: float | None
    """Where the test ended because the loss had exploded; None if it went through to its end."""

    def describe(self) -> str:
        """Return what to make of it, in words."""
        if self.steepest_rate is None or self.lowest_rate is None:
            return "the loss never fell: begin at lower rates, or look for another fault"
        end = f"explodes at {self.diverged_rate:.2g}" if self.diverged_rate else "did not explode: end at higher rates"
        return (
            f"the loss falls fastest at {self.steepest_rate:.2g}, is lowest at {self.lowest_rate:.2g}, and {end}; "
            f"a maximum between {self.steepest_rate:.2g} and {self.lowest_rate:.2g} is worth trying"
        )


class RangeWatch(Callback):
    """Keep the losses of all steps, and end the test when they explode; the same on every rank."""

    runs_on_every_rank = True

    def __init__(self):
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.has_exploded = False

    def on_step_end(self, record: StepRecord) -> None:
        """Keep the step; raises what ends the test."""
        self.rates.append(record.learning_rate)
        self.losses.append(record.loss)
        smoothed = smooth(self.losses)
        if len(smoothed) > _SETTLING_STEPS and smoothed[-1] > _DIVERGED * min(smoothed):
            self.has_exploded = True
            raise _Exploded


class _Exploded(Exception):
    """End the run from inside a callback."""


def run_range_test(trainer: Trainer, watch: RangeWatch) -> RangeTest:
    """Train until the loss explodes or the sweep ends.

    trainer: its schedule is a LearningRateSweep, its callbacks hold `watch`; it is of no use afterwards.
    """
    try:
        with suppress(_Exploded):
            trainer.fit()
    except NonFiniteLoss:
        watch.has_exploded = True
    return interpret(watch.rates, watch.losses, watch.has_exploded)


def interpret(rates: Sequence[float], losses: Sequence[float], has_exploded: bool) -> RangeTest:
    """Find where the loss falls fastest and where it is lowest."""
    smoothed = smooth(losses)
    steepest = lowest = None
    if len(smoothed) > _SETTLING_STEPS:
        lowest_index = min(range(len(smoothed)), key=smoothed.__getitem__)
        slopes = {i: slope_at(rates, smoothed, i) for i in range(_SETTLING_STEPS // 2, lowest_index)}
        if slopes and min(slopes.values()) < 0:
            steepest, lowest = rates[min(slopes, key=slopes.__getitem__)], rates[lowest_index]
    return RangeTest(rates, losses, smoothed, steepest, lowest, rates[-1] if has_exploded and rates else None)


def smooth(values: Sequence[float], reach: int = _REACH_STEPS) -> list[float]:
    """Return the mean of each value and its neighbours on both sides, which lags behind nothing."""
    around = [values[max(0, index - reach) : index + reach + 1] for index in range(len(values))]
    return [sum(near) / len(near) for near in around]


def slope_at(rates: Sequence[float], values: Sequence[float], index: int, reach: int = _REACH_STEPS) -> float:
    """Return the slope of the straight line that fits the values around `index` best, over the logarithm of rates."""
    places = range(max(0, index - reach), min(len(values), index + reach + 1))
    xs, ys = [math.log(rates[i]) for i in places], [values[i] for i in places]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
