"""One footing for every model: the same rows, the same given first token, nats in, bits per byte out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transformerlm.likelihood.exact import autoregressive_nats
from transformerlm.likelihood.monte_carlo import diffusion_nelbo
from transformerlm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of held-out text."""

    row_nats: Tensor
    """[rows] float64, summed over the row's scored tokens."""
    is_bound: bool
    """True for an upper bound (diffusion), False for an exact value."""

    @property
    def nats(self) -> float:
        """Total nats."""
        return float(self.row_nats.sum())

    @property
    def standard_error_nats(self) -> float:
        """Standard error of the total, from the spread of the rows (and, in a bound, of its random draws)."""
        rows = len(self.row_nats)
        return float(self.row_nats.std() * math.sqrt(rows)) if rows > 1 else math.inf


@torch.no_grad()
def score_rows(
    model: nn.Module,
    tokens: Tensor,
    mask_id: int | None,
    rng: torch.Generator,
    valid: Tensor | None = None,
    draws: int = 8,
    batch_size: int = 16,
) -> Score:
    """Score every token of each row but the first, which is given.

    tokens: [rows, seq] int64 on the model's device.  mask_id: of a diffusion model; None scores autoregressively,
    exactly.  rng: a CPU generator.  valid: [rows, seq] bool, False on padding to the right, which is not scored.
    draws: random masks per row of the bound.
    """
    valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    parts = []
    for rows, seen in zip(tokens.split(batch_size), valid.split(batch_size), strict=True):
        if mask_id is None:
            parts.append(autoregressive_nats(model, rows, seen).double().sum(-1).cpu())
        else:
            is_given = torch.zeros_like(seen)
            is_given[:, 0] = True
            mask = None if bool(seen.all()) else seen
            parts.append(diffusion_nelbo(model, rows, is_given, mask_id, draws, rng, mask).mean(-1))
    return Score(torch.cat(parts), is_bound=mask_id is not None)


def count_bytes(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    """Count the UTF-8 bytes that tokens stand for; special tokens have none."""
    special = set(tokenizer.special_tokens.values())
    return sum(len(tokenizer.token_bytes(token)) for token in tokens if token not in special)
