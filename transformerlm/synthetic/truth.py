"""What the embedded corpus itself says of rows of tokens: the exact value every model is held against."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from transformerlm.synthetic.stories import log_probability, prefix_log_probability
from transformerlm.tokenizer import Tokenizer


def story_rows(stories: Iterator[str], tokenizer: Tokenizer, rows: int, length: int) -> Tensor:
    """Lay stories end to end in rows that each begin with a whole one; the last story of a row is cut off.

    Returns [rows, length] int64; every story is preceded by the end-of-text token.
    """
    result = []
    for _ in range(rows):
        row: list[int] = []
        while len(row) < length:
            row += [tokenizer.end_of_text_id, *tokenizer.encode(next(stories), allowed_special="none")]
        result.append(row[:length])
    return torch.tensor(result)


def true_nats(row: Sequence[int], tokenizer: Tokenizer) -> float:
    """Return -log of the probability that the corpus continues an end-of-text token with the rest of the row.

    row: ids, the first one end-of-text. A story that the row cuts off counts with the probability of its beginning:
    that of all stories which begin so. Raises NotAStory if the row holds anything else.
    """
    end = tokenizer.end_of_text_id
    assert row[0] == end, "a row of stories begins with an end-of-text token"
    texts: list[list[int]] = []
    for token in row:
        if token == end:
            texts.append([])
        else:
            texts[-1].append(token)
    whole = sum(log_probability(tokenizer.decode(ids)) for ids in texts[:-1])
    return -(whole + prefix_log_probability(tokenizer.decode(texts[-1])))
