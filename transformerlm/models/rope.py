"""Rotary position embedding, half-split layout (Su et al. 2021, arXiv 2104.09864).

Dimension i of a head is paired with dimension i + head_dim/2, as in Llama checkpoints, so that weights can be
exchanged with them later. The interleaved layout of the paper pairs 2i with 2i + 1: the same model family, but
weights trained under one layout are silently wrong under the other.
"""

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Rotate queries and keys by an angle that grows with their position.

    The tables are kept in float32 and recomputed from the shape, never saved with the weights.
    """

    def __init__(self, head_dim: int, context_length: int, theta: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary embedding needs an even head dimension, got {head_dim}")
        frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.arange(context_length, dtype=torch.float64)[:, None] * frequencies  # [context, head_dim / 2]
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def tables(self, seq: int, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Look up the cosines and sines of a stretch of positions.

        positions: [batch, seq] int64, or None for 0 .. seq-1 in every row.
        Returns two tensors, [1 or batch, 1, seq, head_dim / 2], that broadcast over heads.
        """
        if positions is None:
            return self.cos[None, None, :seq], self.sin[None, None, :seq]
        return self.cos[positions][:, None], self.sin[positions][:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotation to x: [batch, heads, seq, head_dim], keeping its dtype."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
