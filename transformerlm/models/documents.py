"""Several documents in one row, kept apart: no attention across them, and positions that start anew in each.

    documents   1 1 1 2 2 2 2 3        equal within a document, another number in the next
    positions   0 1 2 0 1 2 3 0

The mask is one rule in two forms that a test holds equal: dense for torch's scaled_dot_product_attention, and as
blocks for FlexAttention, which never looks at blocks of keys that no query may see.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # half a second to import, and few models need it
    from torch.nn.attention.flex_attention import BlockMask

MaskRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def restart_positions(documents: Tensor) -> Tensor:
    """Count positions from 0 in every document.

    documents: [batch, seq] int64.  Returns [batch, seq] int64.
    """
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    is_start = torch.ones_like(documents, dtype=torch.bool)
    is_start[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - torch.where(is_start, index, 0).cummax(dim=1).values


def dense_mask(documents: Tensor, is_causal: bool) -> Tensor:
    """Return what each query may see: [batch, 1, seq, seq] bool."""
    index = torch.arange(documents.shape[1], device=documents.device)
    rows = torch.arange(documents.shape[0], device=documents.device)[:, None, None]
    rule = _rule(documents, is_causal)
    return rule(rows, rows, index[:, None], index)[:, None]


def block_mask(documents: Tensor, is_causal: bool) -> "BlockMask":
    """Return the same for FlexAttention, made on the device of `documents`."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, seq = documents.shape
    make = _compiled(create_block_mask) if documents.is_cuda else create_block_mask
    return make(_rule(documents, is_causal), batch, None, seq, seq, device=documents.device)


def attend_blocks(queries: Tensor, keys: Tensor, values: Tensor, blocks: "BlockMask") -> Tensor:
    """Mix the values where the blocks allow it; shapes as in Attention.attend. Without a GPU: forward only, slowly."""
    from torch.nn.attention.flex_attention import flex_attention

    attend = _compiled(flex_attention) if queries.is_cuda else flex_attention
    return attend(queries, keys, values, block_mask=blocks, enable_gqa=queries.shape[1] != keys.shape[1])


def _rule(documents: Tensor, is_causal: bool) -> MaskRule:
    def may_see(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_same = documents[row, query] == documents[row, key]
        return is_same & (query >= key) if is_causal else is_same

    return may_see


@functools.cache
def _compiled(function: Callable) -> Callable:
    """Compile once per process: without it FlexAttention computes every score."""
    return torch.compile(function)
