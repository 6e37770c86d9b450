"""The training row of block diffusion: the noised tokens, and behind them the same tokens clean.

    noised   a M | M d | e M        sees its own noised block, and the clean blocks before it
    clean    a b | c d | e f        sees the clean blocks up to and including its own

One pass so predicts every block as sampling would meet it: masked itself, after finished blocks (BD3-LM, Arriola et al.
2025, arXiv 2503.09573, section 3.2). Both streams have the same positions. In documents that are kept apart the
blocks, like the positions, begin anew.
"""

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transformerlm.models.documents import restart_positions
from transformerlm.models.visibility import VisibilityRule, block_form, dense_form

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def block_starts(seq: int, block_length: int, documents: Tensor | None, device: torch.device) -> Tensor:
    """Return where the block of each position begins.

    documents: [batch, seq] int64 or None.  Returns [batch or 1, seq] int64.
    """
    index = torch.arange(seq, device=device)[None]
    positions = index if documents is None else restart_positions(documents)
    return index - positions % block_length


def predictor_indices(starts: Tensor) -> Tensor:
    """Return which of the 2 * seq positions predicts each token, when the position before does (shifted logits).

    The token before a block is finished when the block is predicted, so the block's first token is predicted by the
    clean stream. Blocks of one token are then autoregression itself. Nothing stands before the first token of a row:
    its own mask predicts it.
    starts: [batch or 1, seq] int64.  Returns [batch or 1, seq] int64.
    """
    seq = starts.shape[1]
    index = torch.arange(seq, device=starts.device)
    before = (index - 1).clamp(min=0)
    return torch.where((starts == index) & (index > 0), seq + before, before)


def two_streams_rule(starts: Tensor, documents: Tensor | None = None, valid: Tensor | None = None) -> VisibilityRule:
    """Return the rule over 2 * seq positions.

    starts: [batch or 1, seq] int64.  documents: [batch, seq] int64 or None.  valid: [batch, seq] bool, False on
    padding, which nobody sees; None without.
    """
    seq, is_shared = starts.shape[1], starts.shape[0] == 1

    def may_see(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query_at, key_at = query % seq, key % seq
        own_row = torch.zeros_like(row) if is_shared else row
        query_block, key_block = starts[own_row, query_at], starts[own_row, key_at]
        is_query_noised, is_key_noised = query < seq, key < seq
        is_own, is_earlier = key_block == query_block, key_block < query_block
        if documents is not None:
            is_earlier = is_earlier & (documents[row, query_at] == documents[row, key_at])
        seen = torch.where(
            is_key_noised, is_query_noised & is_own, is_earlier | (is_own & torch.logical_not(is_query_noised))
        )
        return seen if valid is None else seen & valid[row, key_at]

    return may_see


def shared_mask(seq: int, block_length: int, device: torch.device, *, has_blocks: bool) -> "Tensor | BlockMask":
    """Return the mask of rows without documents or padding, made once.

    has_blocks: for FlexAttention; otherwise dense, [1, 1, 2 * seq, 2 * seq] bool.
    """
    if torch.compiler.is_compiling():  # a compiled pass does not look into caches
        return _make_mask(seq, block_length, device, has_blocks)
    return _remembered_mask(seq, block_length, device, has_blocks)


def _make_mask(seq: int, block_length: int, device: torch.device, has_blocks: bool) -> "Tensor | BlockMask":
    rule = two_streams_rule(block_starts(seq, block_length, None, device))
    return (block_form if has_blocks else dense_form)(rule, 1, 2 * seq, device)


@functools.lru_cache(maxsize=8)
def _remembered_mask(seq: int, block_length: int, device: torch.device, has_blocks: bool) -> "Tensor | BlockMask":
    with torch.inference_mode(False):  # whoever asks first, a training step may be next
        return _make_mask(seq, block_length, device, has_blocks)
