"""Draw tokens from logits.

One uniform number per token picks it from the distribution function, in float64: the same law as adding Gumbel noise to
every logit, for a vocabulary's worth less noise. In float32 the tail is lost, which suppresses rare tokens, visibly so
when a token is drawn jointly with the decision to commit it (Zheng et al. 2024, arXiv 2409.02908).

The uniform numbers come from one generator per row, so a row is the same whichever rows it shares its batch with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformerlm.models import few_rows


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How to choose a token from its distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities add up to p."""
    min_p: float = 0.0
    """Keep the tokens at least this fraction as likely as the likeliest one; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens that the row already holds less likely; 1 is off."""

    @property
    def is_plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return self == SamplingSettings()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or positive, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1], not {self.min_p}")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be positive (1 is off), not {self.repetition_penalty}")


def keep_likely(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Set the logits of unlikely tokens to -inf; the most likely one always stays.

    Each filter sees the distribution that the one before it leaves: top-k, top-p (Holtzman et al. 2020, arXiv
    1904.09751), min-p (Nguyen et al. 2024, arXiv 2407.01082).
    logits: [..., vocab_size] -> the same shape.
    """
    if 0 < settings.top_k < logits.shape[-1]:
        smallest = logits.topk(settings.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if settings.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        is_beyond = ordered.cumsum(dim=-1) - ordered >= settings.top_p  # the mass before this token suffices already
        logits = logits.masked_fill(is_beyond.gather(-1, order.argsort(dim=-1)), -math.inf)
    if settings.min_p > 0:
        floor = logits.amax(dim=-1, keepdim=True) + math.log(settings.min_p)
        logits = logits.masked_fill(logits < floor, -math.inf)
    return logits


def penalize_repeats(logits: Tensor, is_seen: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of tokens already seen (Keskar et al. 2019, arXiv 1909.05858).

    logits: [batch, ..., vocab_size].  is_seen: bool, broadcastable to it.  Returns the shape of logits.
    """
    return torch.where(is_seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample_tokens(logits: Tensor, settings: SamplingSettings, uniforms: Tensor) -> Tensor:
    """Choose one token per position.

    logits: [...,  vocab_size], float32 at least.  uniforms: [...] float64 in [0, 1), one for each; not looked at if
    temperature is 0.  Returns [...] int64.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    scores = logits if settings.temperature == 1 else logits / settings.temperature
    return invert_distribution(keep_likely(scores, settings).softmax(dim=-1), uniforms)


def invert_distribution(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first token at which the summed probabilities exceed the uniform number.

    probabilities: [..., vocab_size], up to a common factor; summed in float64, so that the rarest still counts.
    uniforms: [...] float64 in [0, 1).
    Returns [...] int64; a token of probability zero is never chosen.
    """
    if few_rows.can_draw(probabilities):
        return few_rows.invert_distribution(probabilities, uniforms)
    sums = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = sums[..., -1:]
    # u * total may round up to total, which no sum exceeds.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    return torch.searchsorted(sums, torch.minimum(uniforms[..., None] * total, below_total), right=True).squeeze(-1)


def row_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Make one CPU generator per row, each with its own stream."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw_uniforms(generators: Sequence[torch.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw numbers in [0, 1), each row from its own generator: [rows, *shape] float64."""
    rows = [torch.rand(shape, dtype=torch.float64, generator=generator) for generator in generators]
    return torch.stack(rows).to(device, non_blocking=True)
