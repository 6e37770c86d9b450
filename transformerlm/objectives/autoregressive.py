"""Next-token prediction: the loss is -log p(x_1 .. x_n | x_0), exactly."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transformerlm.models.fused_loss import Targets
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.base import LossOutput, NoiseContext


@dataclass(frozen=True, slots=True)
class Autoregressive:
    """Cross-entropy of token i + 1 at position i, under causal attention."""

    lookahead: int = 1

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], context: NoiseContext) -> LossOutput:
        """Score rows of context + 1 tokens; padding (valid = False) must stand on the right.

        A row of n tokens has n - 1 targets. With "documents", attention stays within each; the token that opens the
        next one is still a target, since it ends the last. Deterministic: `context` is not used.
        """
        tokens = batch["tokens"]
        documents = batch["documents"][:, :-1] if "documents" in batch else None
        is_target = batch["valid"][:, 1:] if "valid" in batch else torch.ones_like(tokens[:, 1:], dtype=torch.bool)
        targets = Targets(tokens[:, 1:].flatten(), is_target.flatten().float())
        loss_sum = model(tokens[:, :-1], is_causal=True, documents=documents, targets=targets).loss_sum
        return LossOutput(loss_sum, is_target.sum().to(loss_sum.dtype))

    def training_flops(self, model: TransformerLM, seq: int) -> int:
        """Count one causal pass."""
        return model.flops_per_token(seq, is_causal=True)
