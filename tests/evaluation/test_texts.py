"""The same text for every checkpoint, and what is known of it."""

import math

import pytest

from transformerlm.evaluation.texts import HeldOutText, pack_rows
from transformerlm.synthetic.languages import LANGUAGES

STORIES, LETTERS = LANGUAGES["synthetic/stories"], LANGUAGES["synthetic/hidden_markov"]


def test_rows_begin_with_a_whole_document_and_nothing_is_padded():
    rows = list(pack_rows([[1, 2], [3], [4, 5, 6, 7, 8, 9], [1]], 0, 5))
    assert rows == [[0, 1, 2, 0, 3], [0, 4, 5, 6, 7], [0, 1]]


def test_every_token_of_a_document_is_scored_once_in_windows(letters):
    text = HeldOutText.lay_out([LETTERS.document("validation", 0)], letters, 10, "documents", LETTERS)
    assert text.num_units == 1
    assert all(len(passage.tokens) <= 10 for passage in text.passages)
    assert text.num_tokens == 64  # the letters, and the end-of-text token behind them
    assert text.num_bytes == 63  # which has no bytes


@pytest.mark.parametrize("layout", ["packed", "documents"])
def test_the_truth_belongs_to_the_same_tokens(letters, layout):
    documents = [LETTERS.document("validation", index) for index in range(5)]
    text = HeldOutText.lay_out(documents, letters, 100, layout, LETTERS)
    whole = -sum(map(LETTERS.log_probability, documents))
    if layout == "documents":
        assert math.fsum(text.true_nats) == pytest.approx(whole)
    else:  # two rows of a document and a cut one, and one that is left
        first = -LETTERS.log_probability(documents[0]) - LETTERS.prefix_log_probability(documents[1][:35])
        assert text.true_nats[0] == pytest.approx(first)
        assert math.fsum(text.true_nats) < whole


def test_both_layouts_count_the_bytes_of_what_they_score(words):
    documents = [STORIES.document("test", index) for index in range(3)]
    whole = HeldOutText.lay_out(documents, words, 160, "documents")
    assert whole.num_bytes == sum(len(document.encode()) for document in documents)
    assert whole.true_nats is None


def test_nothing_to_score_is_said(letters):
    with pytest.raises(ValueError, match="no document"):
        HeldOutText.lay_out([], letters, 10, "packed")
