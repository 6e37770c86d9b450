"""Baselines are probability distributions that count what they saw."""

import numpy as np
import pytest

from transformerlm.likelihood.ngram import NgramBaseline

STREAM = np.array([0, 1, 0, 1, 0, 2, 0, 1])


def test_distributions_sum_to_one_after_every_token():
    baseline = NgramBaseline.count(STREAM, vocab_size=5)
    every = np.arange(5)
    assert np.exp(-baseline.unigram_nats(every)).sum() == pytest.approx(1)
    for left in every:
        assert np.exp(-baseline.bigram_nats(np.full(5, left), every)).sum() == pytest.approx(1)


def test_bigram_by_hand():
    baseline = NgramBaseline.count(STREAM, vocab_size=5)
    unigram_of_one = (3 + 1) / (8 + 5)
    expected = (3 + 2 * unigram_of_one) / (4 + 2)  # 0 is followed 4 times, 3 times by 1, by 2 distinct tokens
    assert np.exp(-baseline.bigram_nats(np.array([0]), np.array([1]))) == pytest.approx(expected)


def test_a_bigram_knows_more_than_a_unigram():
    tokens = np.tile([3, 1, 4], 50)
    baseline = NgramBaseline.count(tokens, vocab_size=10)
    assert baseline.bigram_nats(tokens[:-1], tokens[1:]).mean() < 0.3 * baseline.unigram_nats(tokens[1:]).mean()


def test_nothing_to_count_is_refused():
    with pytest.raises(ValueError, match="two tokens"):
        NgramBaseline.count(np.array([1]), 5)
