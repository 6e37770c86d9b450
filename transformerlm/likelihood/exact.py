"""Exact likelihoods: the chain rule, and any-order models by summing over all subsets.

A bidirectional model defines p(x_i | x_S) for every set S of known positions. Revealing positions in a uniformly
random order gives the quantities that masked diffusion bounds and samples from (Hoogeboom et al. 2022, arXiv
2110.02037). For short sequences both are computed here without sampling; every estimator is tested against them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.objectives.masked_diffusion import forbid_token

MAX_EXACT_LENGTH = 12


@dataclass(frozen=True, slots=True)
class AnyOrderLikelihood:
    """Exact values for one sequence, in nats."""

    nll: float
    """-log of the probability averaged over all orders."""
    nelbo: float
    """The average over all orders of -log probability; never below nll."""


@torch.no_grad()
def autoregressive_nats(model: nn.Module, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Score rows by the chain rule, given their first token.

    tokens: [batch, seq] int64.  valid: [batch, seq] bool, False on padding to the right.
    Returns [batch, seq - 1] nats of tokens 1 .. seq-1, zero on padding.
    """
    logits = model(tokens[:, :-1], is_causal=True)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    nats = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return nats if valid is None else nats * valid[:, 1:]


@torch.no_grad()
def any_order_likelihood(
    model: Callable[..., Tensor],
    tokens: Tensor,
    mask_id: int,
    is_given: Sequence[bool] | None = None,
    batch_size: int = 256,
) -> AnyOrderLikelihood:
    """Compute the exact any-order likelihood and NELBO of a few tokens, given the others.

    Dynamic programming over the 2^L sets S of revealed positions, with g(S) = the summed probability of arriving at S:
        g(S + i) += g(S) p(x_i | x_S) / (L - |S|)          nll = -log g(everything)
        nelbo = sum over S, i not in S of -log p(x_i | x_S) / (C(L, |S|) (L - |S|))
    tokens: [seq] int64.  is_given: True where a token is a condition; None if none is.
    Raises ValueError if more than MAX_EXACT_LENGTH tokens are to be scored.
    """
    free = torch.arange(len(tokens)) if is_given is None else (~torch.tensor(is_given)).nonzero().flatten()
    length = len(free)
    if length > MAX_EXACT_LENGTH:
        raise ValueError(
            f"exact any-order likelihood takes 2^L passes: at most {MAX_EXACT_LENGTH} tokens, not {length}"
        )
    subsets = torch.arange(2**length)
    is_revealed = (subsets[:, None] >> torch.arange(length)) & 1 == 1  # [2^L, L]
    is_seen = torch.ones((2**length, len(tokens)), dtype=torch.bool)
    is_seen[:, free] = is_revealed
    log_p = _conditionals(model, tokens, is_seen, mask_id, batch_size)[:, free]  # [2^L, L]
    reach = torch.full((2**length,), -math.inf, dtype=torch.float64)
    reach[0] = 0.0
    nelbo = 0.0
    for subset in range(2**length - 1):  # every subset precedes its supersets in counting order
        hidden = (~is_revealed[subset]).nonzero().flatten()
        visits = math.comb(length, length - len(hidden)) * len(hidden)
        nelbo -= float(log_p[subset, hidden].sum()) / visits
        for position in hidden.tolist():
            arrival = reach[subset] + log_p[subset, position] - math.log(len(hidden))
            target = subset | 1 << position
            reach[target] = torch.logaddexp(reach[target], arrival)
    return AnyOrderLikelihood(nll=-float(reach[-1]), nelbo=nelbo)


def block_diffusion_likelihood(
    model: nn.Module, tokens: Tensor, block_length: int, mask_id: int, is_given: Sequence[bool] | None = None
) -> AnyOrderLikelihood:
    """Compute the same for a block-causal model: any order within a block, blocks from left to right.

    Each block is passed through the model behind the finished ones, one by one. With block_length 1 both values are
    the chain rule.
    tokens: [seq] int64.  Raises ValueError for blocks with more than MAX_EXACT_LENGTH tokens to score.
    """

    def denoise(noised: Tensor, is_causal: bool) -> Tensor:
        index = torch.arange(noised.shape[1], device=noised.device)
        own_end = (index // block_length * block_length + block_length - 1).clamp(max=noised.shape[1] - 1)
        return model(noised, is_causal=is_causal, last_visible=own_end.expand_as(noised))

    is_given = [False] * len(tokens) if is_given is None else is_given
    nll = nelbo = 0.0
    for start in range(0, len(tokens), block_length):
        own = is_given[start : start + block_length]
        block = any_order_likelihood(denoise, tokens[: start + len(own)], mask_id, [True] * start + list(own))
        nll, nelbo = nll + block.nll, nelbo + block.nelbo
    return AnyOrderLikelihood(nll, nelbo)


def _conditionals(
    model: Callable[..., Tensor], tokens: Tensor, is_seen: Tensor, mask_id: int, batch_size: int
) -> Tensor:
    """log p(x_i | x_S) for every subset and position: [subsets, seq], float64; meaningful where i is hidden."""
    chunks = []
    for seen in is_seen.split(batch_size):
        noised = torch.where(seen.to(tokens.device), tokens, mask_id)
        log_p = forbid_token(model(noised, is_causal=False), mask_id).double().log_softmax(dim=-1)
        chunks.append(log_p.gather(-1, tokens.expand_as(noised)[..., None]).squeeze(-1).cpu())
    return torch.cat(chunks)
