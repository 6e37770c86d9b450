"""Which masked positions a diffusion step commits, and how many."""

import math
from typing import Literal

import torch
from torch import Tensor

Remasking = Literal["low_confidence", "random"]


def plan_quotas(length: int, block_length: int, steps: int) -> list[tuple[int, int, int]]:
    """Divide `steps` over blocks of masks, left to right, and each block's masks over its steps.

    As in LLaDA's reference, remainders go to the first blocks and the first steps. The last block may be shorter.
    Returns one (block start, block end, tokens to commit) per step, positions counted from the first mask. Steps
    beyond one per token commit nothing and are left out.
    Raises ValueError if there are fewer steps than blocks.
    """
    if length == 0:
        return []
    blocks = math.ceil(length / block_length)
    if steps < blocks:
        raise ValueError(
            f"steps = {steps} is fewer than the {blocks} blocks of {block_length} that {length} tokens make; "
            "raise steps or block_length"
        )
    plan = []
    for block in range(blocks):
        start, end = block * block_length, min((block + 1) * block_length, length)
        block_steps = steps // blocks + (block < steps % blocks)
        quota, remainder = divmod(end - start, block_steps)
        commits = [quota + (step < remainder) for step in range(block_steps)]
        plan.extend((start, end, count) for count in commits if count)
    return plan


def choose_commits(confidence: Tensor, is_open: Tensor, quotas: Tensor) -> Tensor:
    """Select the quotas[b] most confident open positions of every row.

    confidence: [batch, block] float.  is_open: [batch, block] bool, True on masks.  quotas: [batch] int64.
    Returns [batch, block] bool.
    """
    ranked = confidence.masked_fill(~is_open, -math.inf).argsort(dim=-1, descending=True, stable=True)
    ranks = ranked.argsort(dim=-1)  # 0 for the most confident
    return (ranks < quotas[:, None]) & is_open


def token_confidence(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the probability the model gives the chosen tokens, before any temperature.

    logits: [batch, block, vocab_size].  tokens: [batch, block] int64.  Returns [batch, block] float64.
    """
    return logits.double().softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)


def random_confidence(shape: tuple[int, ...], generators: list[torch.Generator], device: torch.device) -> Tensor:
    """Draw uniform scores, one generator per row: [batch, block] float64."""
    rows = [torch.rand(shape[1:], dtype=torch.float64, generator=generator) for generator in generators]
    return torch.stack(rows).to(device)
