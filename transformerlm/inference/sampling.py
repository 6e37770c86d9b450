"""Draw tokens from logits.

The Gumbel trick runs in float64: in float32 its tail is cut off, which suppresses rare tokens, visibly so when a token
is drawn jointly with the decision to commit it (Zheng et al. 2024, arXiv 2409.02908).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How to choose a token from its distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities add up to p."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or positive, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")


def keep_likely(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set the logits of unlikely tokens to -inf; the most likely one always stays.

    top-p is taken after top-k, from the distribution that top-k leaves (Holtzman et al. 2020, arXiv 1904.09751).
    logits: [..., vocab_size] -> the same shape.
    """
    if 0 < top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        is_beyond = ordered.cumsum(dim=-1) - ordered >= top_p  # the mass before this token suffices already
        logits = logits.masked_fill(is_beyond.gather(-1, order.argsort(dim=-1)), -math.inf)
    return logits


def sample_tokens(logits: Tensor, settings: SamplingSettings, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one token per position.

    logits: [batch, ..., vocab_size].  generators: one per row of the batch, on the CPU, so that a row's draws do not
    depend on which rows it shares the batch with.  Returns [batch, ...] int64.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    scores = keep_likely(logits.double() / settings.temperature, settings.top_k, settings.top_p)
    # -log of an exponential variate is a Gumbel variate; argmax(logits + Gumbel) is a draw from softmax(logits).
    exponential = [torch.empty(scores.shape[1:], dtype=torch.float64).exponential_(generator=g) for g in generators]
    return (scores - torch.stack(exponential).to(scores.device).log()).argmax(dim=-1)


def row_seed(seed: int, row: int) -> int:
    """Return the seed of one row, so that generating row r alone with it repeats row r of a batch."""
    return seed + 1_000_003 * row


def row_generators(seed: int, rows: int) -> list[torch.Generator]:
    """Make one CPU generator per row, each with its own stream."""
    return [torch.Generator().manual_seed(row_seed(seed, row)) for row in range(rows)]
