"""Blocks: wherever a stream is cut, its pretokens and special tokens are those of the whole."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer.blocks import PADDING, cut_blocks, file_blocks, reader_of
from transformerlm.tokenizer.pretokenize import PATTERNS, Pretokenizer, SpecialTokenFinder

NO_SPECIALS = SpecialTokenFinder(())
SPECIALS = ["ab", "abc d", "bb", "d ab", "<a b>", "é "]


def blocks_of(chunks, pretokenizer, specials, block_bytes):
    encoded = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    return list(cut_blocks(reader_of(encoded), pretokenizer, specials, block_bytes))


@pytest.mark.parametrize("pattern", [*PATTERNS, r"\w+(?= .*z)|\W+"])
@settings(deadline=None, max_examples=400)
@given(
    chunks=st.lists(st.text("abcdz <>'.1\né\u3000\u0085日\u0301²\U00018d80", max_size=6), max_size=12),
    block_bytes=st.integers(4, 12),
)
def test_blocks_split_as_the_whole_text(pattern, chunks, block_bytes):
    pretokenizer, specials = Pretokenizer(pattern), SpecialTokenFinder(SPECIALS)

    def split(text):
        for segment, is_special in specials.segments(text):
            yield from [(segment, True)] if is_special else [(piece, False) for piece in pretokenizer.split(segment)]

    blocks = blocks_of(chunks, pretokenizer, specials, block_bytes)
    assert "".join(block.decode() for block in blocks) == "".join(chunks)
    assert [piece for block in blocks for piece in split(block.decode())] == list(split("".join(chunks)))
    assert all(len(block.buffer) >= block.size + PADDING for block in blocks)


@settings(deadline=None)
@given(text=st.text(), cuts=st.lists(st.integers(0, 50)), block_bytes=st.integers(4, 50))
def test_pieces_may_end_inside_a_character(text, cuts, block_bytes):
    data = text.encode()
    places = [0, *sorted(cuts), len(data)]
    chunks = [data[begin:end] for begin, end in pairwise(places)]
    blocks = blocks_of(chunks, Pretokenizer(), NO_SPECIALS, block_bytes)
    assert "".join(block.decode() for block in blocks) == b"".join(chunks).decode()
    assert [block.start for block in blocks] == [
        sum(before.size for before in blocks[:index]) for index in range(len(blocks))
    ]


@pytest.mark.parametrize("text", ["the little fox, ", "日本の狐。\n"])
def test_blocks_stay_small_in_ordinary_text(text):
    blocks = blocks_of([text * 10_000], Pretokenizer(), NO_SPECIALS, 1000)
    assert max(block.size for block in blocks) <= 1000


def test_a_stretch_without_a_place_to_cut_is_kept_whole():
    blocks = blocks_of(["the " + "x" * 5000 + " fox"], Pretokenizer(), NO_SPECIALS, 100)
    assert [block.decode() for block in blocks if b"x" in block.view.tobytes()] == [" " + "x" * 5000 + " fox"]


def test_blocks_with_a_custom_pattern_end_at_special_tokens_only():
    blocks = blocks_of("a b<|x|>c d", Pretokenizer(r"\w+|\W+"), SpecialTokenFinder(["<|x|>"]), 4)
    assert [block.decode() for block in blocks] == ["a b<|x|>", "c d"]


@pytest.mark.parametrize("block_bytes", [4, 5, 6, 7, 100])
@pytest.mark.parametrize(("content", "place"), [("a é日".encode() + b"\xff", 7), ("a é".encode() + b"\xe6\x97", 4)])
def test_the_place_of_a_wrong_byte_is_the_one_in_the_stream(content, place, block_bytes):
    with pytest.raises(ValueError, match=f"byte {place} is not UTF-8"):
        [block.decode() for block in blocks_of([content], Pretokenizer(), NO_SPECIALS, block_bytes)]


def test_an_unreadable_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"missing.txt: cannot be read \(No such file"):
        list(file_blocks(tmp_path / "missing.txt", Pretokenizer(), NO_SPECIALS))
