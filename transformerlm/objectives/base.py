"""What every objective takes and gives.

An objective is called with the model, a batch and the step's context, and returns a *sum* with the weight to divide it
by. The training loop adds sums and weights over micro-batches and ranks before dividing, so a global batch may be cut
anywhere. The names match trainkit's contract by structure; neither package imports the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from transformerlm.models.transformer import TransformerLM


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of one micro-batch, not yet divided."""

    loss_sum: Tensor
    """[] nats, summed over tokens; differentiable."""
    weight: Tensor
    """[] the number of tokens to divide by."""
    metrics: Mapping[str, Tensor | tuple[Tensor, Tensor]] = field(default_factory=dict)
    """[] each; further sums, divided by the same weight when reported, or pairs of a sum and its own divisor."""


class NoiseContext(Protocol):
    """Where a micro-batch stands in the step's global batch, and the randomness that all of it shares."""

    rng: torch.Generator
    """In the same state for every rank and micro-batch of a step."""
    first_row: int
    total_rows: int
    step: int
    """Optimizer step in training, from 1; 0 in an evaluation, to which nothing that changes with the step applies."""


class LanguageObjective(Protocol):
    """A training objective over rows of tokens."""

    lookahead: int
    """Tokens a row needs beyond the context length: 1 if position i is scored on token i + 1, else 0."""

    def __call__(self, model: torch.nn.Module, batch: Mapping[str, Tensor], context: NoiseContext) -> LossOutput:
        """Score a batch with "tokens" [batch, seq] int64.

        If padded, it has "valid" [batch, seq] bool; if documents are to be kept apart, "documents" [batch, seq] int64.
        """
        ...

    def training_flops(self, model: TransformerLM, seq: int) -> int:
        """Count the floating-point operations that training takes for each token of a row of `seq`."""
        ...
