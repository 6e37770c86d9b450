"""Documents encoded together are the documents encoded one by one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.tokens import encode_documents, encode_text
from transformerlm.tokenizer import Tokenizer

STORIES = Path(__file__).parent.parent.parent / "config/resources/tokenizers/stories_4k"
TOKENIZERS = {backend: Tokenizer.load(STORIES, backend) for backend in ("python", "numba")}
PIECES = ["a story", " about\n\n", "<|endoftext|>", "<|mask|>", "<|endof", "text|>", "", " ", "é", "\U0001f980"]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), max_size=6)


@pytest.mark.parametrize("backend", ["python", "numba"])
@given(texts=texts)
@settings(deadline=None)  # the first call loads the kernels
def test_together_and_one_by_one_are_the_same(backend, texts):
    tokenizer = TOKENIZERS[backend]
    tokens, lengths = encode_documents(tokenizer, texts)
    alone = [[*encode_text(tokenizer, text).tolist(), tokenizer.end_of_text_id] for text in texts]
    assert tokens.tolist() == [token for document in alone for token in document]
    assert lengths.tolist() == [len(document) for document in alone]
    assert tokens.dtype == tokenizer.id_dtype
