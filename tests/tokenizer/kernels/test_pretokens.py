"""The bit algebra finds the pretokens that the pattern finds."""

from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer.blocks import block_of
from transformerlm.tokenizer.kernels.pretokens import BATCH, STARTS_CAPACITY, find_starts
from transformerlm.tokenizer.pretokenize import Pretokenizer
from transformerlm.tokenizer.unicode_classes import class_bits

# Every kind of character the pattern tells apart, in one to four bytes, and the letters of contractions.
NEIGHBOURS = "aAsdtmlrveR1 '!\n\t\r\x0b\x00\x1c\x7f\x85\xa0é²·\u0301\u1680\u2003\u3000日٣०😀𝒜𝟘\U000e0001\U00018d80"


def pretokens(text: bytes) -> tuple[list[bytes], int]:
    """Split by the kernel, batch after batch; also return where it saw bytes that are not UTF-8, or -1."""
    block, starts, status = block_of(text), np.zeros(STARTS_CAPACITY, np.uint32), np.full(1, -1)
    pieces, position = [], 0
    while position < len(text):
        words, following = find_starts(block.buffer, position, len(text), class_bits(), starts, status)
        offsets = starts[: words + 1].astype(int) + position
        pieces += [text[begin:end] for begin, end in pairwise(offsets)]
        position = following
    return pieces, int(status[0])


@settings(deadline=None, max_examples=1500)
@given(text=st.one_of(st.text(NEIGHBOURS, max_size=150), st.text(max_size=150)))
@example(text="x" * 62 + "'s t")
@example(text="x" * 63 + "'s t")
@example(text="x" * 62 + "'ll y")
@example(text="x" * 61 + " 日本")
@example(text="x" * 63 + "\u3000\u3000y")
@example(text=" " * 64 + "y")
@example(text="\u3000" * 40 + "y")
def test_pretokens_are_those_of_the_pattern(text):
    expected = [piece.encode() for piece in Pretokenizer("gpt2").split(text)]
    assert pretokens(text.encode()) == (expected, -1)


@settings(deadline=None, max_examples=300)
@given(
    parts=st.lists(st.text(NEIGHBOURS, min_size=1, max_size=4), min_size=1, max_size=12), repeats=st.integers(1, 400)
)
def test_batches_join_without_a_seam(parts, repeats):
    text = "".join(parts) * repeats
    assert pretokens(text.encode())[0] == [piece.encode() for piece in Pretokenizer("gpt2").split(text)]


@pytest.mark.slow
def test_every_character_has_the_class_that_hugging_face_gives_it():
    # All that Unicode 16 assigns, and more; behind it no letter, number or space is to be expected for long.
    characters = [chr(code) for code in range(0x34000) if not 0xD800 <= code <= 0xDFFF]
    peer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for first in range(0, len(characters), 2**16):
        for neighbour in "a1!":
            text = "\n".join(neighbour + character for character in characters[first : first + 2**16])
            borders = [begin for _, (begin, _) in peer.pre_tokenize_str(text)]
            pieces, _ = pretokens(text.encode())
            assert np.cumsum([0, *map(len, pieces)])[:-1].tolist() == _byte_offsets(text, borders)


def _byte_offsets(text: str, borders: list[int]) -> list[int]:
    widths = np.cumsum([0, *(len(character.encode()) for character in text)])
    return widths[borders].tolist()


@pytest.mark.parametrize("length", [BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 70_000])
@pytest.mark.parametrize("piece", [".a", "a ", "=", " ", "é", "日 "])
def test_long_runs_fit_the_buffers(piece, length):
    text = piece * length
    assert pretokens(text.encode())[0] == [part.encode() for part in Pretokenizer("gpt2").split(text)]


@settings(deadline=None, max_examples=500)
@given(data=st.one_of(st.binary(max_size=100), st.text(max_size=30).map(str.encode)), cut=st.integers(0, 100))
def test_bytes_that_are_not_utf8_are_found_where_python_finds_them(data, cut):
    data = data[: len(data) - cut % 3]
    try:
        data.decode()
        place = -1
    except UnicodeDecodeError as error:
        place = error.start
    pieces, found = pretokens(data)
    assert b"".join(pieces) == data
    assert found == place
