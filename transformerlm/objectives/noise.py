"""Forward noise of masked diffusion: how much to mask at time t, and which times to draw.

At time t in (0, 1] every token is masked independently with probability p(t); the loss at that time is weighted by
w(t), so that its expectation over t bounds the negative log-likelihood. Formulas: LLaDA (Nie et al. 2025, arXiv
2502.09992) for the linear schedule, MDLM (Sahoo et al. 2024, 2406.07524) and MD4 (Shi et al. 2024, 2406.04329) for the
rest.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from transformerlm.objectives.base import NoiseContext

MaskDraw = Literal["stratified", "iid", "exact_count", "complementary"]
"""How masks are drawn: independently at a rate whose times are spread evenly over the batch, or are independent too;
or an exact number of them, spread evenly; or that number and, in a second copy of the row, all the others."""


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


@dataclass(frozen=True, slots=True)
class Spans:
    """The stretches of a row that are masked as one: the whole row, or its blocks."""

    starts: Tensor
    """[batch or 1, seq] int64, where the span of each position begins."""
    length: int
    """Positions in a span; fewer where a document or the row ends."""
    may_mask: Tensor
    """[batch, seq] bool, False on padding and where a token is always given."""

    @property
    def sizes(self) -> Tensor:
        """[batch, seq] int64: how many positions of each position's span may be masked."""
        starts = self.starts.expand_as(self.may_mask)
        counts = torch.zeros_like(starts).scatter_add_(1, starts, self.may_mask.long())
        return counts.gather(1, starts)


@dataclass(frozen=True, slots=True)
class Noise:
    """How much of a span to mask, and how to draw it."""

    schedule: NoiseSchedule = field(default_factory=LinearSchedule)
    draw: MaskDraw = "stratified"
    lowest: float = 0.0
    """Times, or shares of a span, are drawn between these two: a narrower range varies less but is no bound."""
    highest: float = 1.0

    def of_bound(self) -> "Noise":
        """Return the same noise over the whole range, whose mean loss is the bound."""
        return replace(self, lowest=0.0, highest=1.0)

    def draw_weights(self, spans: Spans, context: NoiseContext) -> Tensor:
        """Mask each span; the weights make sum(weights * nats) an estimate of its NELBO.

        Noise is drawn for the whole global batch and the micro-batch takes its rows of it: how the batch is cut over
        ranks and accumulation steps changes nothing, and what is spread evenly is so over all spans of all rows.
        Returns [copies * batch, seq] float32, 0 where not masked; two copies of the rows for complementary masks.
        """
        batch, seq = spans.may_mask.shape
        slots = -(-seq // spans.length)  # two spans share one where a document ends between them
        slot = (spans.starts // spans.length).expand(batch, seq)
        rows = slice(context.first_row, context.first_row + batch)
        if self.draw in ("stratified", "iid"):
            times = sample_times(context.total_rows * slots, context.rng, self.draw == "stratified")
            times = self.lowest + (self.highest - self.lowest) * times.view(-1, slots)[rows].gather(1, slot)
            is_masked = _uniform(context, seq)[rows] < self.schedule.mask_rate(times)
            return torch.where(is_masked & spans.may_mask, self.schedule.weight(times), 0.0)
        stratum, offset = _draw_strata(context, slots)
        drawn = _Strata(stratum[rows].gather(1, slot), offset[rows].gather(1, slot), context.total_rows * slots)
        counts = drawn.counts(spans.sizes, self.lowest, self.highest)
        return _exact_weights(spans, counts, _uniform(context, seq)[rows], has_complement=self.draw == "complementary")


def sample_times(count: int, rng: torch.Generator, is_stratified: bool = True) -> Tensor:
    """Draw one time per span of a global batch.

    Stratified: exactly one time in each of `count` equal intervals, (u + i / count) mod 1 with one u for all
    (low-discrepancy sampling, Kingma et al. 2021, arXiv 2107.00630), dealt out in random order, so that any part of the
    batch covers the whole range. Otherwise they are independent.
    Returns [count] in [0, 1), float32, on the generator's device.
    """
    if not is_stratified:
        return torch.rand(count, generator=rng, device=rng.device)
    offset = torch.rand(1, generator=rng, device=rng.device)
    strata = torch.randperm(count, generator=rng, device=rng.device)
    return (offset + strata / count) % 1


@dataclass(frozen=True, slots=True)
class _Strata:
    """Which of `total` equal strata each span drew, and where in it: [batch, seq] each, the same all over a span."""

    stratum: Tensor
    offset: Tensor
    total: int

    def counts(self, sizes: Tensor, lowest: float, highest: float) -> Tensor:
        """Return how many positions to mask: uniform over the choices lowest * size .. highest * size, at least 1.

        floor((offset + choices * stratum) / total) in integers: over offsets and strata every choice occurs equally
        often. (Rounding a fraction half to even does not: it biases the loss.)
        """
        least = (lowest * sizes - 1e-9).ceil().long().clamp(min=1)
        most = torch.maximum((highest * sizes + 1e-9).floor().long(), least)
        choices = most - least + 1
        offset = torch.minimum((self.offset * choices).long(), choices - 1)
        return least + (offset + choices * self.stratum) // self.total


def _draw_strata(context: NoiseContext, slots: int) -> tuple[Tensor, Tensor]:
    total, rng = context.total_rows * slots, context.rng
    stratum = torch.randperm(total, generator=rng, device=rng.device).view(-1, slots)
    return stratum, torch.rand(stratum.shape, generator=rng, device=rng.device, dtype=torch.float64)


def _uniform(context: NoiseContext, seq: int) -> Tensor:
    return torch.rand((context.total_rows, seq), generator=context.rng, device=context.rng.device)


def _exact_weights(spans: Spans, counts: Tensor, uniform: Tensor, *, has_complement: bool) -> Tensor:
    """Mask exactly counts of each span's positions, every subset equally likely, weighted by size / count.

    With a complement, each copy has half the weight; but a mask of everything, whose complement is empty, counts
    whole, or the loss with nothing to see would enter half only.
    """
    # Sorting by span, then what may be masked, then at random gives each position its rank within its span.
    key = 2 * spans.starts + (~spans.may_mask).long() + uniform.double()
    rank = key.argsort(dim=1).argsort(dim=1) - spans.starts
    is_masked = (rank < counts) & spans.may_mask
    sizes = spans.sizes
    weights = torch.where(is_masked, sizes / counts, 0.0)
    if not has_complement:
        return weights
    is_other = spans.may_mask & ~is_masked
    complement = torch.where(is_other, sizes / (sizes - counts).clamp(min=1), 0.0)
    return torch.cat((torch.where(counts == sizes, weights, weights / 2), complement / 2))
