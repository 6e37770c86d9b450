"""Monte-Carlo bounds on the likelihood of a bidirectional model.

With exactly k of L hidden positions masked, k uniform in 1 .. L and each subset of that size equally likely,
    (L / k) * sum over masked positions of -log p(x_i | rest)
is an unbiased estimate of the NELBO, with far lower variance on short spans than independent masks weighted by 1/t
(Nie et al. 2025, arXiv 2502.09992, appendix B).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.objectives.masked_diffusion import forbid_token


def stratified_counts(length: int, draws: int, rng: torch.Generator) -> Tensor:
    """Draw how many positions to mask in each of `draws` passes over a row.

    1 + floor((u + j length) / draws), u uniform in 0 .. length-1: over u and j every count occurs equally often, in
    integers, and each row's draws spread evenly. (Rounding a fraction half to even does not: it biases the bound.)
    Returns [draws] int64 in 1 .. length, on the CPU.
    """
    offset = torch.randint(length, (1,), generator=rng)
    return 1 + (offset + length * torch.arange(draws)) // draws


def exact_count_masks(is_hidden: Tensor, counts: Tensor, rng: torch.Generator) -> Tensor:
    """Mask exactly counts[b] of the positions that is_hidden[b] allows, every subset equally likely.

    is_hidden: [batch, seq] bool.  counts: [batch] int64, none above its row's hidden positions.
    Returns [batch, seq] bool, on the CPU.
    """
    order = torch.rand(is_hidden.shape, generator=rng, dtype=torch.float64).masked_fill(~is_hidden, 2.0)
    ranks = order.argsort(dim=-1).argsort(dim=-1)  # 0 for the smallest
    return ranks < counts[:, None]


@torch.no_grad()
def diffusion_nelbo(
    model: nn.Module,
    tokens: Tensor,
    is_given: Tensor,
    mask_id: int,
    draws: int,
    rng: torch.Generator,
    valid: Tensor | None = None,
) -> Tensor:
    """Estimate an upper bound on -log p(hidden tokens | given tokens) of every row.

    tokens: [batch, seq] int64.  is_given: [batch, seq] bool, True where the token is a condition, never masked.
    rng: a CPU generator.  valid: [batch, seq] bool, False on padding, which is neither scored nor seen; None without.
    Returns [batch, draws] float64 nats on the CPU; average over draws for the bound.
    Raises ValueError if a row has nothing to score.
    """
    is_hidden = ~is_given.cpu() if valid is None else (valid & ~is_given).cpu()
    lengths = is_hidden.sum(dim=-1)  # [batch]
    if int(lengths.min()) == 0:
        raise ValueError("a row has no token to score: every position is given")
    counts = torch.stack([stratified_counts(length, draws, rng) for length in lengths.tolist()])  # [batch, draws]
    estimates = []
    for draw in range(draws):
        is_masked = exact_count_masks(is_hidden, counts[:, draw], rng).to(tokens.device)
        logits = forbid_token(model(tokens.masked_fill(is_masked, mask_id), is_causal=False, valid=valid), mask_id)
        nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
        row_nats = torch.where(is_masked, nats, 0.0).double().sum(dim=-1).cpu()
        estimates.append(row_nats * lengths / counts[:, draw])
    return torch.stack(estimates, dim=-1)
