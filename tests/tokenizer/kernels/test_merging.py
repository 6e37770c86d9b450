"""Compiled merging equals merging.py, whatever the merges and the word."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer import Vocabulary
from transformerlm.tokenizer.blocks import block_of
from transformerlm.tokenizer.fast_encoding import build_merge_tables
from transformerlm.tokenizer.kernels.merging import LONGEST_MASKED_WORD, MASKED_CAPACITY, merge_long, merge_masked
from transformerlm.tokenizer.merging import MergeTable


@st.composite
def merges_and_word(draw):
    """Merges in any order, so that a later one may make what an earlier one needs, and a word they apply to."""
    tokens, merges = [b"a", b"b", b"c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in merges and len(b"".join(pair)) < 40:
            merges.append(pair)
            tokens.append(b"".join(pair))
    order = draw(st.permutations(merges))
    return order, draw(st.text("abcd", min_size=1, max_size=LONGEST_MASKED_WORD)).encode()


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(merges_and_word())
def test_both_kernels_equal_the_reference(merges_and_word):
    merges, word = merges_and_word
    vocabulary = Vocabulary.from_merges(merges, [])
    expected = MergeTable(vocabulary).apply(word)
    tables, text = build_merge_tables(vocabulary), block_of(word).buffer
    symbols, ranks = np.empty(MASKED_CAPACITY, np.uint32), np.empty(MASKED_CAPACITY, np.uint32)
    count = merge_masked(text, 0, len(word), tables, symbols, ranks)
    assert symbols[:count].tolist() == expected
    assert merged_in_windows(word, tables, len(word)) == expected


def merged_in_windows(word, tables, window_bytes):
    out = np.empty(len(word), np.uint16)
    return out[: merge_long(block_of(word).buffer, 0, len(word), tables, window_bytes, out, 0)].tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(merges_and_word(), st.integers(1, 400), st.integers(1, 60), st.randoms(use_true_random=False))
def test_long_words_merged_in_windows_equal_the_reference(merges_and_word, length, window_bytes, random):
    vocabulary = Vocabulary.from_merges(merges_and_word[0], [])
    word = bytes(random.choices(b"abcd", weights=[3, 3, 3, 1], k=length))
    expected = MergeTable(vocabulary).apply(word)
    assert merged_in_windows(word, build_merge_tables(vocabulary), window_bytes) == expected


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 62, 63])
def test_words_that_fill_their_vectors(length):
    chain = [b"x" * size for size in range(1, 64)]
    vocabulary = Vocabulary.from_merges([(left, b"x") for left, _ in pairwise(chain)], [])
    symbols, ranks = np.empty(MASKED_CAPACITY, np.uint32), np.empty(MASKED_CAPACITY, np.uint32)
    text = block_of(b"x" * length).buffer
    count = merge_masked(text, 0, length, build_merge_tables(vocabulary), symbols, ranks)
    assert symbols[:count].tolist() == MergeTable(vocabulary).apply(b"x" * length)
