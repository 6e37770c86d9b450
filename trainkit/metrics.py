"""Say what is reported about a step and about an evaluation; every logger writes these and nothing else."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Report one optimizer step, summed over all ranks and micro-batches."""

    step: int
    loss: float
    """The step's mean loss: sum of losses / sum of weights."""
    learning_rate: float
    grad_norm: float
    """Global norm of the gradient of the mean loss, before clipping."""
    weight: float
    """What the loss was divided by: targets of the whole step."""
    weight_seen: float
    """The sum of `weight` since the run began, earlier sessions included."""
    step_ms: float
    """Wall-clock time of the step, waiting for data included, evaluation and saving not."""
    data_wait_ms: float
    """The part of step_ms spent waiting for the batch source of rank 0."""
    data_wait_share: float
    """Of all step_ms of this session, the first step's aside, the part spent waiting for data [0, 1]."""
    elapsed_s: float
    """Wall-clock time of training since the run began, earlier sessions included."""
    metrics: Mapping[str, float]
    """The objective's own metrics, each divided by `weight`."""

    @property
    def weight_per_second(self) -> float:
        """Return the throughput over all ranks."""
        return self.weight / (self.step_ms / 1000.0)

    def to_json(self, unit: str = "weight") -> dict[str, Any]:
        """Return the flat record that loggers write; `unit` names what the weight counts, such as "tokens"."""
        return {
            "step": self.step,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            unit: self.weight,
            f"{unit}_seen": self.weight_seen,
            f"{unit}_per_second": self.weight_per_second,
            "step_ms": self.step_ms,
            "data_wait_ms": self.data_wait_ms,
            "data_wait_share": self.data_wait_share,
            "elapsed_s": self.elapsed_s,
            **self.metrics,
        }


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """Report one pass over the validation batches of all ranks."""

    step: int
    loss: float
    weight: float
    batches: int
    """Micro-batches evaluated, over all ranks."""
    metrics: Mapping[str, float]

    def to_json(self, unit: str = "weight") -> dict[str, Any]:
        """Return the flat record that loggers write, every name under "validation_"."""
        values = {"loss": self.loss, unit: self.weight, "batches": self.batches, **self.metrics}
        return {"step": self.step} | {f"validation_{name}": value for name, value in values.items()}


class StepClock:
    """Time the parts of a step by wall clock."""

    def __init__(self):
        self.step_ms = 0.0
        self.data_wait_ms = 0.0
        self.data_wait_share = 0.0
        self._steps, self._all_steps_ms, self._all_waits_ms = 0, 0.0, 0.0
        self._session_began_s = self._step_began_s = time.perf_counter()

    def start_session(self, elapsed_s: float) -> None:
        """Begin counting; earlier sessions of the run took `elapsed_s`."""
        self._session_began_s = time.perf_counter() - elapsed_s

    def start_step(self) -> None:
        """Mark the beginning of a step, before its data is fetched."""
        self._step_began_s = time.perf_counter()

    def end_fetch(self) -> None:
        """Mark the arrival of the step's data."""
        self.data_wait_ms = (time.perf_counter() - self._step_began_s) * 1000.0

    def end_step(self) -> float:
        """Mark the end of a step and return the seconds since the run began, earlier sessions included."""
        now_s = time.perf_counter()
        self.step_ms = (now_s - self._step_began_s) * 1000.0
        self._steps += 1
        if self._steps > 1:  # in the first step files are opened and nothing was read ahead
            self._all_steps_ms += self.step_ms
            self._all_waits_ms += self.data_wait_ms
            self.data_wait_share = self._all_waits_ms / self._all_steps_ms
        return now_s - self._session_began_s


def json_line(values: Mapping[str, Any]) -> str:
    """Write a record as one line of JSON; numbers that are not finite, which JSON lacks, become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False)
