"""Sums that travel together: a step's loss, weight and metrics as one vector, added up and reduced in one go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainkit.protocols import StepOutput


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Say what stands where in a vector of sums: loss, weight, plain metrics, then metrics with their divisors."""

    plain: tuple[str, ...]
    """Divided by the weight."""
    paired: tuple[str, ...]
    """Each divided by its own divisor, which follows it."""

    @classmethod
    def of(cls, output: StepOutput) -> "MetricNames":
        """Read the names from an output."""
        paired = {name for name, value in output.metrics.items() if isinstance(value, tuple)}
        return cls(tuple(sorted(output.metrics.keys() - paired)), tuple(sorted(paired)))

    def pack(self, output: StepOutput, device: torch.device) -> Tensor:
        """Return an output's sums as one vector [2 + metrics] float64, in which token counts stay exact."""
        values = [output.loss_sum, output.weight, *(output.metrics[name] for name in self.plain)]
        for name in self.paired:
            values += output.metrics[name]
        return torch.stack([value.detach().to(device, torch.float64, non_blocking=True) for value in values])

    def divide(self, sums: Sequence[float]) -> dict[str, float]:
        """Return each metric from the totals that `pack` laid out; nan where a divisor is zero."""
        weight, rest = sums[1], sums[2:]
        means = {name: _divide(total, weight) for name, total in zip(self.plain, rest, strict=False)}
        pairs = rest[len(self.plain) :]
        for index, name in enumerate(self.paired):
            means[name] = _divide(pairs[2 * index], pairs[2 * index + 1])
        return means

    def __len__(self) -> int:
        """Return the length of the packed vector."""
        return 2 + len(self.plain) + 2 * len(self.paired)


def _divide(total: float, divisor: float) -> float:
    return total / divisor if divisor else math.nan
