"""Forward noise of masked diffusion: how much to mask at time t, and which times to draw.

At time t in (0, 1] every token is masked independently with probability p(t); the loss at that time is weighted by
w(t), so that its expectation over t bounds the negative log-likelihood. Formulas: LLaDA (Nie et al. 2025, arXiv
2502.09992) for the linear schedule, MDLM (Sahoo et al. 2024, 2406.07524) and MD4 (Shi et al. 2024, 2406.04329) for the
rest.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

TimeSampling = Literal["stratified", "iid"]


class NoiseSchedule(Protocol):
    """Mask rate and loss weight as functions of time."""

    def mask_rate(self, t: Tensor) -> Tensor:
        """Return p(t) in (0, 1], elementwise."""
        ...

    def weight(self, t: Tensor) -> Tensor:
        """Return w(t), elementwise: p'(t) / p(t) up to the schedule's epsilon."""
        ...


@dataclass(frozen=True, slots=True)
class LinearSchedule:
    """p = (1 - epsilon) t + epsilon, w = 1 / p."""

    epsilon: float = 1e-3

    def mask_rate(self, t: Tensor) -> Tensor:
        """Return p(t)."""
        return (1 - self.epsilon) * t + self.epsilon

    def weight(self, t: Tensor) -> Tensor:
        """Return 1 / p(t)."""
        return 1 / self.mask_rate(t)


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    """p = 1 - (1 - epsilon) cos(pi t / 2): more time spent at low mask rates."""

    epsilon: float = 1e-3

    def mask_rate(self, t: Tensor) -> Tensor:
        """Return p(t)."""
        return 1 - (1 - self.epsilon) * torch.cos(math.pi / 2 * t)

    def weight(self, t: Tensor) -> Tensor:
        """Return p'(t) / (p(t) + epsilon)."""
        slope = math.pi / 2 * (1 - self.epsilon) * torch.sin(math.pi / 2 * t)
        return slope / (self.mask_rate(t) + self.epsilon)


SCHEDULES = {"linear": LinearSchedule, "cosine": CosineSchedule}


def sample_times(count: int, rng: torch.Generator, sampling: TimeSampling = "stratified") -> Tensor:
    """Draw one time per row of a global batch.

    "stratified" places exactly one time in each of `count` equal intervals: (u + i / count) mod 1 with one u for all
    (low-discrepancy sampling, Kingma et al. 2021, arXiv 2107.00630), dealt to the rows in random order, so that any
    part of the batch covers the whole range. "iid" draws independently.
    Returns [count] in [0, 1), float32, on the generator's device.
    """
    if sampling == "iid":
        return torch.rand(count, generator=rng, device=rng.device)
    offset = torch.rand(1, generator=rng, device=rng.device)
    strata = torch.randperm(count, generator=rng, device=rng.device)
    return (offset + strata / count) % 1
