"""Keys and values of the positions that went through the network before.

    cache.keys[layer]    [batch, kv_heads, capacity, head_dim]      allocated once, written in place
                                 |  0 .. length-1: may be read  |  the rest: free  |

A pass says where its tokens stand; their keys and values are written there, over what stood there before, and then
every query reads the positions it may see. One rule serves all decoders:

    autoregressive      a new token sees 0 .. its own position
    whole refresh       every position is written anew
    a window            some positions are written anew; the others keep what they had, stale or exact

Rows may stand at different positions. Padding on the right of a short row needs no mask of its own: what it wrote lies
beyond every query's sight until the real token overwrites it.
"""

from copy import copy
from typing import Self

import torch
from torch import Tensor


class KVCache:
    """Preallocated keys and values for every layer of one batch."""

    def __init__(self, shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device | str) -> None:
        """shape: (layers, batch, kv_heads, capacity, head_dim)."""
        num_layers, *each = shape
        # A tensor per layer: a compiled step then writes in place, where a view of one large tensor would be copied.
        self.keys = [torch.zeros(each, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(each, dtype=dtype, device=device) for _ in range(num_layers)]
        # Known on the host, so that attention reads a slice without asking the device how long it is.
        self.length = 0
        self.rows: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the cache takes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    @property
    def capacity(self) -> int:
        """Positions a row can hold."""
        return self.keys[0].shape[2]

    def reach(self, length: int) -> None:
        """Let queries read positions 0 .. length-1 from now on; the next pass may write up to there."""
        assert length <= self.capacity, f"{length} positions do not fit a cache of {self.capacity}"
        self.length = max(self.length, length)

    def of_rows(self, rows: Tensor) -> Self:
        """Return the same cache for a pass over some rows only.

        rows: [n] int64, indices into the batch.
        """
        part = copy(self)
        part.rows = rows
        return part

    def write_beginning(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values of positions 0 .. seq-1: [batch, kv_heads, seq, head_dim] each."""
        rows = slice(None) if self.rows is None else self.rows
        self.keys[layer][rows, :, : keys.shape[2]] = keys
        self.values[layer][rows, :, : keys.shape[2]] = values

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor | int) -> tuple[Tensor, Tensor]:
        """Store new keys and values and return all that may be read.

        keys, values: [batch, kv_heads, seq, head_dim].  positions: [batch, seq] int64, or where all rows begin.
        Returns [batch, kv_heads, length, head_dim] twice: views if the pass is over all rows, else copies.
        """
        if isinstance(positions, int):
            assert self.rows is None, "rows that begin abreast are all the rows"
            end = positions + keys.shape[2]
            self.keys[layer][:, :, positions:end] = keys
            self.values[layer][:, :, positions:end] = values
            return self.keys[layer][:, :, : self.length], self.values[layer][:, :, : self.length]
        rows = torch.arange(keys.shape[0], device=keys.device) if self.rows is None else self.rows
        self.keys[layer][rows[:, None], :, positions] = keys.transpose(1, 2)
        self.values[layer][rows[:, None], :, positions] = values.transpose(1, 2)
        if self.rows is None:
            return self.keys[layer][:, :, : self.length], self.values[layer][:, :, : self.length]
        return self.keys[layer][rows, :, : self.length], self.values[layer][rows, :, : self.length]
