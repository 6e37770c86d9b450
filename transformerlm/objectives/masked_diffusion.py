"""Masked (absorbing) diffusion: recover randomly masked tokens from everything else.

LLaDA (Nie et al. 2025, arXiv 2502.09992), MDLM (Sahoo et al. 2024, 2406.07524).

    1. draw a time t per row, a mask rate p(t), and mask each token with probability p(t)
    2. predict the masked tokens with bidirectional attention; position i predicts token i, there is no shift
    3. loss = sum over masked positions of cross-entropy * w(t), divided by *all* tokens, masked or not

Its expectation is an upper bound on the negative log-likelihood per token (the NELBO).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.objectives.base import LossOutput, NoiseContext
from transformerlm.objectives.mask_rates import loss_by_mask_rate
from transformerlm.objectives.noise import LinearSchedule, NoiseSchedule, TimeSampling, sample_times

HeadMode = Literal["full", "gathered"]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One noised micro-batch."""

    tokens: Tensor
    """[batch, seq] int64: the clean tokens, perhaps cut to a shorter length."""
    noised: Tensor
    """[batch, seq] int64: the same with masks in it."""
    weights: Tensor
    """[batch, seq] float32: w(t) where masked, else 0."""
    valid: Tensor | None
    """[batch, seq] bool, False on padding; None without padding."""

    @property
    def is_masked(self) -> Tensor:
        """[batch, seq] bool."""
        return self.weights > 0


@dataclass(frozen=True, slots=True)
class MaskedDiffusion:
    """The masked-diffusion training loss."""

    mask_id: int
    schedule: NoiseSchedule = field(default_factory=LinearSchedule)
    time_sampling: TimeSampling = "stratified"
    random_length_probability: float = 0.0
    """Share of steps whose rows are cut to a length uniform in 1 .. seq, so that short inputs are seen too."""
    head: HeadMode = "full"
    """"gathered" projects only masked positions onto the vocabulary: the same loss for less work."""
    gather_capacity: float = 0.75
    """Share of the positions the gathered head has room for; a batch with more masks takes the full head."""
    lookahead: int = 0
    is_causal: bool = False

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], context: NoiseContext) -> LossOutput:
        """Score rows of tokens; the same context gives the same noise."""
        noise = self.corrupt(batch["tokens"], batch.get("valid"), context)
        selected = self.select_positions(noise.is_masked) if self.head == "gathered" else None
        documents = batch["documents"][:, : noise.tokens.shape[1]] if "documents" in batch else None
        logits = model(noise.noised, is_causal=False, valid=noise.valid, selected=selected, documents=documents)
        targets, weights = noise.tokens.flatten(), noise.weights.flatten()
        if selected is not None:
            targets, weights = targets[selected], weights[selected]
        nats = F.cross_entropy(forbid_token(logits, self.mask_id).flatten(0, -2), targets, reduction="none")
        # A position that is not masked carries its token over and costs nothing. Its target may be the forbidden
        # token itself (infinite loss), hence `where` instead of a product with zero.
        loss_sum = torch.where(weights > 0, nats * weights, 0.0).sum()
        count = noise.tokens.numel() if noise.valid is None else noise.valid.sum()
        return LossOutput(
            loss_sum,
            loss_sum.new_zeros(()) + count,
            {
                "masked_share": noise.is_masked.sum().to(loss_sum.dtype),
                **loss_by_mask_rate(nats, noise.is_masked, noise.valid, selected),
            },
        )

    def corrupt(self, tokens: Tensor, valid: Tensor | None, context: NoiseContext) -> Corruption:
        """Mask a micro-batch.

        Noise is drawn for the whole global batch and the micro-batch takes its rows of it: how the batch is cut over
        ranks and accumulation steps changes nothing, and the times are stratified over all of it.
        tokens: [batch, seq] int64.  valid: [batch, seq] bool or None.
        """
        rng, total = context.rng, context.total_rows
        rows = slice(context.first_row, context.first_row + tokens.shape[0])
        length = self._draw_length(tokens.shape[1], rng)
        tokens, valid = tokens[:, :length], None if valid is None else valid[:, :length]
        times = sample_times(total, rng, self.time_sampling)[rows, None]  # [batch, 1]
        uniform = torch.rand((total, length), generator=rng, device=rng.device)[rows]
        is_masked = uniform < self.schedule.mask_rate(times)
        if valid is not None:
            is_masked &= valid
        weights = torch.where(is_masked, self.schedule.weight(times), 0.0)
        return Corruption(tokens, tokens.masked_fill(is_masked, self.mask_id), weights, valid)

    def _draw_length(self, seq: int, rng: torch.Generator) -> int:
        if self.random_length_probability == 0:
            return seq
        is_cut, share = torch.rand(2, generator=rng, device=rng.device).tolist()
        return 1 + int(share * seq) if is_cut < self.random_length_probability else seq

    def select_positions(self, is_masked: Tensor) -> Tensor | None:
        """Choose a fixed number of positions that include every masked one, or None if they do not fit.

        A fixed number keeps shapes constant, which compilation wants. Dropping what does not fit would bias the loss.
        is_masked: [batch, seq] bool.  Returns [capacity] int64 indices into the flattened positions.
        """
        capacity = math.ceil(self.gather_capacity * is_masked.numel())
        if int(is_masked.sum()) > capacity:
            return None
        return is_masked.flatten().int().argsort(descending=True, stable=True)[:capacity]


def forbid_token(logits: Tensor, token: int) -> Tensor:
    """Give one token probability zero (the SUBS parameterisation: a mask is never an answer).

    logits: [..., vocab_size].  Returns the same shape, at least float32.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.index_fill(-1, torch.tensor(token, device=logits.device), -math.inf)
