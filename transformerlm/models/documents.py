"""Several documents in one row, kept apart: no attention across them, and positions that start anew in each.

documents   1 1 1 2 2 2 2 3        equal within a document, another number in the next
positions   0 1 2 0 1 2 3 0
"""

import torch
from torch import Tensor

from transformerlm.models.visibility import VisibilityRule


def restart_positions(documents: Tensor) -> Tensor:
    """Count positions from 0 in every document.

    documents: [batch, seq] int64.  Returns [batch, seq] int64.
    """
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    is_start = torch.ones_like(documents, dtype=torch.bool)
    is_start[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - torch.where(is_start, index, 0).cummax(dim=1).values


def documents_rule(documents: Tensor, is_causal: bool, last_visible: Tensor | None = None) -> VisibilityRule:
    """Return the rule: a token sees its own document, up to itself if causal, or up to last_visible: [batch, seq]."""

    def may_see(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_same = documents[row, query] == documents[row, key]
        if last_visible is not None:
            return is_same & (key <= last_visible[row, query])
        return is_same & (query >= key) if is_causal else is_same

    return may_see
