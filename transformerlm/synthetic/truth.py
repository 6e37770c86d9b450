"""What an embedded corpus itself says of rows of tokens: the exact value every model is held against."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from transformerlm.synthetic.languages import KnownLanguage
from transformerlm.tokenizer import Tokenizer


def document_rows(texts: Iterator[str], tokenizer: Tokenizer, rows: int, length: int) -> Tensor:
    """Lay documents end to end in rows that each begin with a whole one; the last document of a row is cut off.

    Returns [rows, length] int64; every document is preceded by the end-of-text token.
    """
    result = []
    for _ in range(rows):
        row: list[int] = []
        while len(row) < length:
            row += [tokenizer.end_of_text_id, *tokenizer.encode(next(texts), allowed_special="none")]
        result.append(row[:length])
    return torch.tensor(result)


def true_nats(row: Sequence[int], tokenizer: Tokenizer, language: KnownLanguage) -> float:
    """Return -log of the probability that the corpus continues an end-of-text token with the rest of the row.

    row: ids, the first one end-of-text. A document that the row cuts off counts with the probability of its beginning:
    that of all documents which begin so. A row with anything else in it has infinite nats, or raises NotAStory.
    """
    end = tokenizer.end_of_text_id
    assert row[0] == end, "a row of documents begins with an end-of-text token"
    texts: list[list[int]] = []
    for token in row:
        if token == end:
            texts.append([])
        else:
            texts[-1].append(token)
    whole = sum(language.log_probability(tokenizer.decode(ids)) for ids in texts[:-1])
    return -(whole + language.prefix_log_probability(tokenizer.decode(texts[-1])))
