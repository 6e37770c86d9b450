"""Keys and values of the positions that went through the network before.

    cache.keys[layer]    [batch, kv_heads, capacity, head_dim]      allocated once, written in place
                                 |  0 .. length-1: visible  |  the rest: free, or left over from padding  |

Rows may stand at different positions: every token carries its own, its key is written there, and a query at position
p sees keys 0 .. p of its own row only. Padding to the right of a short prompt therefore needs no mask of its own: what
it wrote lies beyond every query's sight until the real token overwrites it.
"""

import torch
from torch import Tensor


class KVCache:
    """Preallocated keys and values for every layer of one batch."""

    def __init__(self, shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device | str) -> None:
        """shape: (layers, batch, kv_heads, capacity, head_dim)."""
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        # Host-side upper bound of the positions written: lets attention read a slice without asking the device.
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions a row can hold."""
        return self.keys.shape[3]

    def advance(self, seq: int) -> None:
        """Count `seq` more positions as possibly written.

        Rows need not stand at the same position, so this is a bound: a row that started behind the longest one may
        still have room when the bound has reached the capacity.
        """
        self.length = min(self.length + seq, self.capacity)

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values and return everything written so far.

        keys, values: [batch, kv_heads, seq, head_dim].  positions: [batch, seq] int64.
        Returns two views, [batch, kv_heads, length, head_dim].
        """
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]  # [batch, 1]
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2)
        self.values[layer][rows, :, positions] = values.transpose(1, 2)
        return self.keys[layer, :, :, : self.length], self.values[layer, :, :, : self.length]
