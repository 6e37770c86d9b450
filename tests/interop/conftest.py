"""Tokenizers that the interchange is tried on."""

from collections.abc import Callable, Sequence

import pytest

from tests.interop.helpers import CORPUS, SPECIALS
from transformerlm.tokenizer import Tokenizer, Vocabulary, train_bpe


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Tokenizer]:
    """Learn a vocabulary of four languages, cut by a pattern."""
    merges = train_bpe([CORPUS], 420, []).vocabulary.merges

    def make(pattern: str, specials: Sequence[str] = SPECIALS) -> Tokenizer:
        return Tokenizer(Vocabulary.from_merges(merges, specials, pattern), "python")

    return make
