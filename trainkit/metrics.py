"""Say what is reported about a step and about an evaluation; every logger writes these and nothing else."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainkit.clock import Pause, StepTimes


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Report one optimizer step, summed over all ranks and micro-batches."""

    step: int
    loss: float
    """The step's mean loss: sum of losses / sum of weights."""
    loss_ema: float
    """Running mean of the loss over about the last 50 good steps."""
    learning_rate: float
    """The schedule's learning rate."""
    learning_rates: Mapping[str, float]
    """The learning rate of each parameter group."""
    grad_norm: float
    """Global norm of the gradient of the mean loss, before clipping."""
    skipped_steps: int
    """Steps of the run whose update was left out: not finite, or a spike."""
    weight: float
    """What the loss was divided by: targets of the whole step."""
    weight_seen: float
    """The sum of `weight` since the run began, earlier sessions included."""
    times: StepTimes
    pauses_ms: Mapping[Pause, float]
    """How long training stood still since the last logged step."""
    data_wait_share: float
    """Of all step times of this session, the first step's aside, the part spent waiting for data [0, 1]."""
    elapsed_s: float
    """Wall-clock time of training since the run began, earlier sessions included."""
    mfu: float | None
    """Share of the devices' dense peak that the model's own work used; None where it is not known."""
    peak_memory_mb: float
    """The most memory rank 0 has held: tensors on a GPU, the whole process on a CPU."""
    metrics: Mapping[str, float]
    """The objective's own metrics, divided, and those of callbacks."""

    @property
    def weight_per_second(self) -> float:
        """Return the throughput over all ranks."""
        return self.weight / (self.times.step_ms / 1000.0)

    def to_json(self, unit: str = "weight") -> dict[str, Any]:
        """Return the flat record that loggers write; `unit` names what the weight counts, such as "tokens"."""
        return {
            "step": self.step,
            "loss": self.loss,
            "loss_ema": self.loss_ema,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "skipped_steps": self.skipped_steps,
            unit: self.weight,
            f"{unit}_seen": self.weight_seen,
            f"{unit}_per_second": self.weight_per_second,
            "mfu": self.mfu,
            "step_ms": self.times.step_ms,
            "data_wait_ms": self.times.data_wait_ms,
            "forward_backward_ms": self.times.forward_backward_ms,
            "optimizer_ms": self.times.optimizer_ms,
            **{f"{name}_ms": pause_ms for name, pause_ms in self.pauses_ms.items()},
            "data_wait_share": self.data_wait_share,
            "elapsed_s": self.elapsed_s,
            "peak_memory_mb": self.peak_memory_mb,
            **{f"learning_rate/{group}": rate for group, rate in self.learning_rates.items()},
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
    best_loss: float = math.inf
    """The lowest validation loss of the run, this one included."""
    best_step: int = 0
    """The step that had it."""

    @property
    def is_best(self) -> bool:
        """Tell whether no earlier evaluation of the run found a loss as low."""
        return self.step == self.best_step

    def to_json(self, unit: str = "weight") -> dict[str, Any]:
        """Return the flat record that loggers write, every name under "validation_" or "best_"."""
        values = {"loss": self.loss, unit: self.weight, "batches": self.batches, **self.metrics}
        return {
            "step": self.step,
            **{f"validation_{name}": value for name, value in values.items()},
            "best_validation_loss": self.best_loss,
            "best_step": self.best_step,
        }


def json_line(values: Mapping[str, Any]) -> str:
    """Write a record as one line of JSON; numbers that are not finite, which JSON lacks, become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(finite, allow_nan=False)
