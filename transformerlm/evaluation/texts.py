"""Held-out text as passages to score: the same tokens, with the same conditions, for every checkpoint.

Every document follows an end-of-text token, as in training. Two layouts:

    packed       documents end to end in rows that each begin with a whole one, as packed training rows hold them;
                 the last document of a row is cut off
    documents    each document by itself, up to and including its end-of-text token, in windows if it is too long
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from transformerlm.likelihood.held_out import count_bytes
from transformerlm.likelihood.score import Passage
from transformerlm.synthetic.languages import KnownLanguage
from transformerlm.synthetic.truth import true_nats
from transformerlm.tokenizer import Tokenizer

Layout = Literal["packed", "documents"]


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """What is scored, and what is known of it."""

    passages: list[Passage]
    owners: list[int]
    """For each passage, the unit that it belongs to: units are independent, and errors are taken over them."""
    num_bytes: int
    """UTF-8 bytes of the scored tokens."""
    true_nats: list[float] | None
    """For each unit, what its language itself gives it; None if that is not known."""

    @property
    def num_units(self) -> int:
        """Rows or documents."""
        return 1 + max(self.owners)

    @property
    def num_tokens(self) -> int:
        """Scored tokens."""
        return sum(passage.num_scored for passage in self.passages)

    @classmethod
    def lay_out(
        cls,
        texts: Iterable[str],
        tokenizer: Tokenizer,
        length: int,
        layout: Layout,
        language: KnownLanguage | None = None,
    ) -> Self:
        """Tokenize documents and cut them into passages of at most `length` tokens.

        language: what the documents are known to come from.  Raises ValueError if there are none.
        """
        end = tokenizer.end_of_text_id
        documents = (tokenizer.encode(text, allowed_special="none") for text in texts)
        if layout == "packed":
            units = list(pack_rows(documents, end, length))
        else:
            units = [[end, *document, end] for document in documents]
        if not units:
            raise ValueError("there is no document to score; name a split that has some, or raise data.max_documents")
        truth = None if language is None else [true_nats(unit, tokenizer, language) for unit in units]
        passages, owners = [], []
        for owner, unit in enumerate(units):
            windows = Passage.windows(unit, length)
            passages += windows
            owners += [owner] * len(windows)
        num_bytes = sum(count_bytes(tokenizer, unit[1:]) for unit in units)
        return cls(passages, owners, num_bytes, truth)


def pack_rows(documents: Iterable[Sequence[int]], end: int, length: int) -> Iterator[list[int]]:
    """Yield rows of at most `length` tokens, each the beginning of a document and what follows it."""
    row: list[int] = []
    for document in documents:
        row += [end, *document]
        if len(row) >= length:
            yield row[:length]
            row = []
    if len(row) > 1:
        yield row
