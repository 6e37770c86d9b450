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
        cos, sin = angles.cos().float(), angles.sin().float()
        self.register_buffer("cos", torch.cat((cos, cos), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=-1), persistent=False)

    def tables(self, seq: int, positions: Tensor | int | None = None) -> tuple[Tensor, Tensor]:
        """Look up the cosines and signed sines of a stretch of positions.

        positions: [batch, seq] int64, or where every row begins; None for 0.
        Returns two tensors, [1 or batch, 1, seq, head_dim], that broadcast over heads.
        """
        if isinstance(positions, Tensor):
            return self.cos[positions][:, None], self.sin[positions][:, None]
        stretch = slice(positions or 0, (positions or 0) + seq)
        return self.cos[None, None, stretch], self.sin[None, None, stretch]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotation to x: [batch, heads, seq, head_dim], keeping its dtype.

    Rolling by half a head brings each dimension's partner to it; the first half's sines are negative.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)
