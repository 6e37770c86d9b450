"""Random masks for bounds on the likelihood of a bidirectional or block-causal model.

A *span* is what is masked as one: all hidden tokens of a passage, or those of one block. With exactly k of a span's n
hidden positions masked, k uniform in 1 .. n and each subset of that size equally likely,
    (n / k) * sum over masked positions of -log p(x_i | rest)
is an unbiased estimate of the span's NELBO, with far lower variance on short spans than independent masks weighted by
1/t (Nie et al. 2025, arXiv 2502.09992, appendix B).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from transformerlm.objectives.noise import LinearSchedule

EvaluationDraw = Literal["exact_count", "complementary", "stratified", "iid"]
"""How masks are drawn: an exact count; exact counts in pairs that mask each position once; or independent masks whose
rates are spread evenly over a passage's draws, or are independent too."""


def draw_span_weights(
    spans: Sequence[Sequence[int]],
    draws: int,
    mask_draw: EvaluationDraw = "exact_count",
    seed: int = 0,
    streams: Sequence[int] | None = None,
) -> list[Tensor]:
    """Draw the masks of passages, as the weights that masked positions have in the bound.

    spans: of each passage, the hidden positions in each of its spans, in order.  streams: passages of the same stream
    share their random numbers, span by span and position by position; by default each is on its own.
    Returns for each passage [draws, hidden positions] float64, 0 where nothing is masked; sum(weights * nats) of each
    draw estimates the bound.  Raises ValueError if the draws do not suffice.
    """
    if draws < 1 or (mask_draw == "complementary" and draws % 2):
        raise ValueError(f"draws = {draws} does not fit mask draw {mask_draw!r}; use {_wanted(mask_draw)}")
    streams = range(len(spans)) if streams is None else streams
    most: dict[int, tuple[int, int]] = {}
    for sizes, stream in zip(spans, streams, strict=True):
        before = most.get(stream, (0, 0))
        most[stream] = max(before[0], len(sizes)), max(before[1], *sizes)
    return [
        torch.cat(_weights(sizes, draws, mask_draw, _Randomness(seed, stream, *most[stream], draws)), dim=1)
        for sizes, stream in zip(spans, streams, strict=True)
    ]


def stratified_counts(length: int, draws: int, offset: int) -> Tensor:
    """Spread the number of positions to mask over `draws` passes.

    1 + floor((offset + j length) / draws), offset uniform in 0 .. length-1: over offset and j every count occurs
    equally often, in integers, and each span's draws spread evenly. (Rounding a fraction half to even does not: it
    biases the bound.)
    Returns [draws] int64 in 1 .. length, ascending.
    """
    return 1 + (offset + length * torch.arange(draws)) // draws


def combine_draws(estimates: Tensor, mask_draw: EvaluationDraw) -> tuple[float, float]:
    """Return the mean of a passage's draws and its standard error.

    estimates: [draws] float64 nats.  The error is computed as if draws were independent (pairs, of complementary
    masks): where they are stratified it is on the safe side.
    """
    independent = estimates.view(-1, 2).mean(-1) if mask_draw == "complementary" else estimates
    count = len(independent)
    error = independent.std().item() / math.sqrt(count) if count > 1 else math.inf
    return estimates.mean().item(), error


class _Randomness:
    """The random numbers of one stream; what a passage reads of them depends on its place, not on its length."""

    def __init__(self, seed: int, stream: int, num_spans: int, span_size: int, draws: int) -> None:
        digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
        rng = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

        def uniform(*sizes: int) -> Tensor:
            return torch.rand(sizes, generator=rng, dtype=torch.float64)

        self.offsets = uniform(num_spans)
        self.times = uniform(num_spans, draws)
        self.order = uniform(num_spans, draws)
        self.keys = uniform(num_spans, draws, span_size)


def _weights(sizes: Sequence[int], draws: int, mask_draw: EvaluationDraw, random: _Randomness) -> list[Tensor]:
    """Draw the weights of each span: [draws, size] each."""
    weights = []
    for span, size in enumerate(sizes):
        keys = random.keys[span, :, :size]
        if mask_draw in ("exact_count", "complementary"):
            passes = draws // 2 if mask_draw == "complementary" else draws
            offset = min(int(random.offsets[span] * size), size - 1)
            counts = stratified_counts(size, passes, offset)[random.order[span, :passes].argsort()]
            exact = exact_count_weights(keys[:passes], counts)
            weights.append(exact if mask_draw == "exact_count" else _with_complements(exact, counts))
        else:
            times = random.times[span]
            if mask_draw == "stratified":
                times = (random.offsets[span] + random.order[span].argsort().double() / draws) % 1
            schedule = LinearSchedule()
            is_masked = keys < schedule.mask_rate(times)[:, None]
            weights.append(torch.where(is_masked, schedule.weight(times)[:, None], 0.0))
    return weights


def exact_count_weights(keys: Tensor, counts: Tensor) -> Tensor:
    """Mask the counts[j] positions with the smallest keys, every subset equally likely if the keys are.

    keys: [draws, size] float64, uniform.  counts: [draws] int64 in 1 .. size.
    Returns [draws, size] float64: size / count where masked, else 0.
    """
    ranks = keys.argsort(dim=-1).argsort(dim=-1)  # 0 for the smallest
    return torch.where(ranks < counts[:, None], keys.shape[-1] / counts.double()[:, None], 0.0)


def _with_complements(weights: Tensor, counts: Tensor) -> Tensor:
    """Follow each mask by its complement: [pairs, size] -> [2 * pairs, size].

    With k uniform in 1 .. n the mean of n a_k and n a_(n-k) sums all counts but n itself only half: a mask of
    everything, whose complement is empty, therefore counts double.
    """
    size = weights.shape[-1]
    is_all = (counts == size)[:, None]
    complement = torch.where(weights == 0, size / (size - counts).double().clamp(min=1)[:, None], 0.0)
    return torch.stack((torch.where(is_all, 2 * weights, weights), complement), dim=1).flatten(0, 1)


def _wanted(mask_draw: EvaluationDraw) -> str:
    assert mask_draw in get_args(EvaluationDraw)
    return "an even number" if mask_draw == "complementary" else "at least 1"
