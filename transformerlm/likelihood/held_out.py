"""One footing for every model: the same rows, the same given first token, and the bytes that they stand for."""

from collections.abc import Sequence

from torch import Tensor

from transformerlm.likelihood.score import Passage
from transformerlm.tokenizer import Tokenizer


def row_passages(tokens: Tensor, valid: Tensor | None = None) -> list[Passage]:
    """Return rows of held-out tokens as passages: every token of a row but the first is scored.

    tokens: [rows, seq] int64.  valid: [rows, seq] bool, False on padding to the right; None without.
    """
    if valid is None:
        return [Passage.document(row) for row in tokens.tolist()]
    return [Passage.document(row[seen].tolist()) for row, seen in zip(tokens, valid, strict=True)]


def count_bytes(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    """Count the UTF-8 bytes that tokens stand for; special tokens have none."""
    special = set(tokenizer.special_tokens.values())
    return sum(len(tokenizer.token_bytes(token)) for token in tokens if token not in special)
