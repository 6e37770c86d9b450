"""Grades are the grammar's own numbers."""

import math
from pathlib import Path

import pytest

from benchmarking.story_quality import grade_text, grade_texts, token_entropy
from transformerlm.synthetic.stories import entropy_nats, log_probability, prefix_log_probability, story
from transformerlm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(Path("config/resources/tokenizers/stories_4k"))


def test_a_story_has_its_own_probability(tokenizer):
    text = story("test", 0)
    grade = grade_text(text, tokenizer)
    assert (grade.is_story, grade.agreed_share) == (True, 1.0)
    assert grade.agreed_nats == pytest.approx(-log_probability(text))
    assert grade.agreed_tokens == len(tokenizer.encode(text))


def test_a_text_counts_up_to_where_it_leaves_the_grammar(tokenizer):
    text = story("test", 0)
    grade = grade_text(text[:60] + "zzz", tokenizer)
    assert not grade.is_story
    assert grade.agreed_share == pytest.approx(60 / 63)
    assert grade.agreed_nats == pytest.approx(-prefix_log_probability(text[:60]))


def test_the_truth_grades_itself_with_its_entropy(tokenizer):
    texts = [story("test", index) for index in range(200)]
    quality = grade_texts(texts, tokenizer)
    assert (quality.valid_share, quality.agreed_share) == (1.0, 1.0)
    tokens = sum(len(tokenizer.encode(text)) for text in texts) / 200
    assert abs(quality.nats_per_token - entropy_nats() / tokens) < 4 * quality.nats_per_token_error


def test_entropy_of_token_counts():
    assert token_entropy([1, 1, 2, 2]) == pytest.approx(math.log(2))
    assert token_entropy([7, 7]) == token_entropy([]) == 0
