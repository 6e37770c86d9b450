"""Which predictions a diffusion step commits, and which committed tokens it masks again.

A policy sees one block of every row: a candidate for each open position, how sure the model is, and the row's quota.
Everything is decided row by row; nothing is averaged over the batch.

    random, low_confidence, margin, entropy     the planned quota, at random or the surest first
    threshold, factor, entropy_bound            as many as are sure enough, at least one (Fast-dLLM; EB-sampler)
    first_hitting                               one position, uniformly: exact ancestral sampling
    remdm                                       independent coins, which may also mask tokens again
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from transformerlm.inference.plan import ADAPTIVE_POLICIES, Policy


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a step may choose from; every tensor is [rows, block]."""

    log_probs: Tensor
    """[rows, block, vocab_size] float32 or float64, as the model gives them: before temperature and filters."""
    tokens: Tensor
    """int64, the token drawn for each position."""
    is_open: Tensor
    """bool, True where a token is still to be found."""
    uniforms: Tensor
    """float64 in [0, 1), for policies that toss coins."""


def chosen_log_probs(candidates: Candidates) -> Tensor:
    """Return log p of the drawn tokens: [rows, block]."""
    return candidates.log_probs.gather(-1, candidates.tokens[..., None]).squeeze(-1)


def entropies(log_probs: Tensor) -> Tensor:
    """Return the entropy of each distribution [nats]: [..., vocab_size] -> [...]."""
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -math.inf, 0.0)).sum(dim=-1)


def score_candidates(policy: Policy, candidates: Candidates) -> Tensor:
    """Return how eagerly each position is committed: [rows, block], only its order matters."""
    match policy.name:
        case "random" | "first_hitting" | "remdm":
            return candidates.uniforms
        case "margin":
            first, second = candidates.log_probs.exp().topk(2, dim=-1).values.unbind(dim=-1)
            return first - second
        case "entropy" | "entropy_bound":
            return -entropies(candidates.log_probs)
    return chosen_log_probs(candidates).exp()


def choose_commits(policy: Policy, candidates: Candidates, quotas: Tensor, end_id: int | None) -> Tensor:
    """Select the positions to commit.

    quotas: [rows] int64, how many of them; policies that decide by themselves do not look at it.
    Returns [rows, block] bool.
    """
    scores = score_candidates(policy, candidates)
    eagerness = scores
    if policy.is_end_last and end_id is not None:
        eagerness = eagerness.masked_fill(candidates.tokens == end_id, torch.finfo(scores.dtype).min)
    order = eagerness.masked_fill(~candidates.is_open, -math.inf).argsort(dim=-1, descending=True, stable=True)
    ranks = order.argsort(dim=-1)  # 0 for the surest
    if policy.name in ADAPTIVE_POLICIES:
        ordered = eagerness.masked_fill(~candidates.is_open, -math.inf).gather(-1, order)
        quotas = count_sure(policy, ordered).clamp(min=1)
    return (ranks < quotas[:, None]) & candidates.is_open


def count_sure(policy: Policy, ordered: Tensor) -> Tensor:
    """Count the positions that are sure enough to be committed together.

    ordered: [rows, block] scores, falling; -inf where nothing is open.  Returns [rows] int64.
    """
    if policy.name == "threshold":
        is_sure = ordered >= policy.threshold
    elif policy.name == "factor":
        ranks = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device)
        is_sure = ordered >= 1 - policy.factor / (ranks + 1)
    else:
        # Entropies rise along the row, so the largest of the first r is the r-th: what came before is the rest's sum.
        rising = -ordered.clamp(min=-1e9)
        is_sure = rising.cumsum(dim=-1) - rising <= policy.entropy_bound
    return (is_sure & ordered.isfinite()).sum(dim=-1)


def remasking_coins(policy: Policy, candidates: Candidates, is_ours: Tensor, progress: Tensor) -> tuple[Tensor, Tensor]:
    """Decide by independent coins what to commit and what to mask again (ReMDM, Wang et al. 2025, arXiv 2503.00307).

    With alpha = the share of the block's steps done before, and beta = after this step:
        mask again   with sigma = min(remask_share, (1 - beta) / alpha)
        commit       with (beta - (1 - sigma) alpha) / (1 - alpha)
    so that, whatever sigma is, a share beta of the positions is known on average. sigma = 0 is ancestral sampling.
    is_ours: [rows, block] bool, tokens that the sampler itself has committed.
    progress: [rows, 2] float64, alpha and beta.  Returns commits and remasks, [rows, block] bool each.
    """
    alpha, beta = progress[:, :1], progress[:, 1:]
    sigma = torch.minimum(torch.full_like(alpha, policy.remask_share), (1 - beta) / alpha.clamp(min=1e-12))
    commit = (beta - (1 - sigma) * alpha) / (1 - alpha)
    return candidates.is_open & (candidates.uniforms < commit), is_ours & (candidates.uniforms < sigma)


def next_hitting_time(time: float, num_open: int, uniform: float) -> float:
    """Return when the next of the open positions is unmasked: t u^(1/n) (Zheng et al. 2024, arXiv 2409.02908)."""
    return time * (1.0 - uniform) ** (1.0 / num_open)
