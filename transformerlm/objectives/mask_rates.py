"""How hard a diffusion model finds it to fill in few masks, and many: its loss by the share of tokens masked."""

from itertools import pairwise

import torch
from torch import Tensor

NUM_BUCKETS = 5


def loss_by_mask_rate(
    nats: Tensor, is_masked: Tensor, valid: Tensor | None = None, selected: Tensor | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for each fifth of mask rates the cross-entropy summed over masked tokens, and how many those are.

    Unlike the training loss it is not weighted: nats per masked token, from "0.0-0.2" (nearly everything is known) to
    "0.8-1.0" (hardly anything). A row belongs to the share of its tokens that is masked. Waits for nothing on a GPU.

    nats: [n] of the flattened positions, or of those in `selected`.  is_masked: [batch, seq] bool.
    valid: [batch, seq] bool, False on padding.  selected: [n] int64 indices into the flattened [batch * seq].
    """
    lengths = is_masked.shape[1] if valid is None else valid.sum(dim=1).clamp(min=1)
    shares = is_masked.sum(dim=1) / lengths  # [batch]
    rows = (shares * NUM_BUCKETS).long().clamp(max=NUM_BUCKETS - 1)
    buckets, counted = rows[:, None].expand_as(is_masked).flatten(), is_masked.flatten()
    if selected is not None:
        buckets, counted = buckets[selected], counted[selected]
    zeros = nats.new_zeros(NUM_BUCKETS)
    sums = zeros.index_add(0, buckets, torch.where(counted, nats.detach(), 0.0))
    counts = zeros.index_add(0, buckets, counted.to(nats.dtype))
    edges = [index / NUM_BUCKETS for index in range(NUM_BUCKETS + 1)]
    names = [f"loss_by_mask_rate/{low:.1f}-{high:.1f}" for low, high in pairwise(edges)]
    return {name: (total, count) for name, total, count in zip(names, sums, counts, strict=True)}
