"""Which query sees which key, as one rule in two forms that tests hold equal.

Dense for torch's scaled_dot_product_attention, and as blocks for FlexAttention, which never looks at blocks of keys
that no query may see. FlexAttention has no backward pass on a CPU, so it is the form for GPUs.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # half a second to import, and few models need it
    from torch.nn.attention.flex_attention import BlockMask

VisibilityRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(row, head, query, key) -> whether it is seen, for tensors of indices that broadcast."""


def dense_form(rule: VisibilityRule, rows: int, seq: int, device: torch.device) -> Tensor:
    """Return what each query may see: [rows, 1, seq, seq] bool."""
    index = torch.arange(seq, device=device)
    row = torch.arange(rows, device=device)[:, None, None]
    return rule(row, row, index[:, None], index).expand(rows, seq, seq)[:, None]


def block_form(rule: VisibilityRule, rows: int, seq: int, device: torch.device) -> "BlockMask":
    """Return the same for FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask

    make = compiled(create_block_mask) if device.type == "cuda" else create_block_mask
    return make(rule, rows, None, seq, seq, device=device)


def attend_blocks(queries: Tensor, keys: Tensor, values: Tensor, blocks: "BlockMask") -> Tensor:
    """Mix the values where the blocks allow it; shapes as in Attention.attend. Without a GPU: forward only, slowly."""
    from torch.nn.attention.flex_attention import flex_attention

    attend = compiled(flex_attention) if queries.is_cuda else flex_attention
    return attend(queries, keys, values, block_mask=blocks, enable_gqa=queries.shape[1] != keys.shape[1])


@functools.cache
def compiled(function: Callable) -> Callable:
    """Compile once per process: without it FlexAttention computes every score."""
    return torch.compile(function)
