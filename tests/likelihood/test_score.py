"""Passages say what is scored; scores add up."""

import math

import pytest

from transformerlm.likelihood.score import CorpusScore, DocumentScore, Passage


def test_passages_say_what_is_scored():
    assert Passage.document([7, 1, 2]).is_given == (True, False, False)
    assert Passage.continuation([7, 1], [2, 3]) == Passage((7, 1, 2, 3), (True, True, False, False))
    assert Passage.gaps([7, 1, 2, 3], {2}).is_given == (True, True, False, True)
    assert Passage.gaps([7, 1, 2, 3], {2}).num_scored == 1


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9, 10])
def test_windows_score_every_token_but_the_first_exactly_once(count):
    tokens = list(range(100, 100 + count))
    windows = Passage.windows(tokens, 4)
    scored = [token for w in windows for token, given in zip(w.tokens, w.is_given, strict=True) if not given]
    assert scored == tokens[1:]
    assert max(len(window.tokens) for window in windows) <= 4


def test_a_passage_with_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="no token to score"):
        Passage.continuation([1, 2], [])


def test_scores_add_up():
    scores = [DocumentScore(6.0, 3, 0.3, True), DocumentScore(2.0, 2, 0.4, True), DocumentScore(4.0, 1, 0.0, True)]
    total = CorpusScore.of(scores)
    assert (total.nats, total.num_tokens, total.num_documents, total.is_bound) == (12.0, 6, 3, True)
    assert total.nats_per_token == 2.0
    assert total.perplexity == pytest.approx(math.exp(2))
    assert total.draw_error == pytest.approx(0.5)
    assert total.bits_per_byte(10) == pytest.approx(12 / math.log(2) / 10)
    # residuals against two nats a token: 0, -2, 2
    assert total.document_error == pytest.approx(math.sqrt(8 / 2 * 3) / 6)


def test_documents_of_equal_rate_leave_no_error_however_long_they_are():
    assert CorpusScore.of([DocumentScore(2.0 * n, n) for n in (1, 5, 30)]).document_error == pytest.approx(0)
    assert CorpusScore.of([DocumentScore(2.0, 1)]).document_error == math.inf
