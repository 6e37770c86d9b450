"""Rows of stories, and what they cost under the corpus itself."""

import itertools
import math

import pytest

from transformerlm.synthetic import stories
from transformerlm.synthetic.languages import LANGUAGES
from transformerlm.synthetic.truth import document_rows, true_nats
from transformerlm.tokenizer import Tokenizer, train_bpe

LENGTH = 160
LANGUAGE = LANGUAGES["synthetic/stories"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [stories.story("train", index) for index in range(200)]
    return train_bpe(texts, 600, ["<|endoftext|>", "<|mask|>"])


def texts_from(index):
    return (stories.story("validation", i) for i in itertools.count(index))


def test_every_row_begins_with_a_whole_story(tokenizer):
    rows = document_rows(texts_from(0), tokenizer, 5, LENGTH)
    assert rows.shape == (5, LENGTH)
    for row in rows.tolist():
        assert row[0] == tokenizer.end_of_text_id
        text = tokenizer.decode(row[1:]).split("<|endoftext|>")[0]
        assert stories.prefix_log_probability(text) > -math.inf


def test_a_row_costs_its_whole_stories_and_the_beginning_of_the_last(tokenizer):
    end = tokenizer.end_of_text_id
    first, second = stories.story("validation", 0), stories.story("validation", 1)
    cut = tokenizer.encode(second)[:7]
    row = [end, *tokenizer.encode(first), end, *cut]
    expected = stories.log_probability(first) + stories.prefix_log_probability(tokenizer.decode(cut))
    assert true_nats(row, tokenizer, LANGUAGE) == pytest.approx(-expected)
    assert true_nats([end], tokenizer, LANGUAGE) == 0.0


def test_many_rows_cost_the_entropy(tokenizer):
    count = 150
    rows = [[tokenizer.end_of_text_id, *tokenizer.encode(text)] for text in itertools.islice(texts_from(0), count)]
    closed = [[*row, tokenizer.end_of_text_id] for row in rows]
    values = [true_nats(row, tokenizer, LANGUAGE) for row in closed]
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / count / count)
    assert abs(mean - stories.entropy_nats()) < 4 * spread


def test_anything_else_is_not_a_story(tokenizer):
    row = [tokenizer.end_of_text_id, *tokenizer.encode("Twice below a time"), tokenizer.end_of_text_id]
    with pytest.raises(stories.NotAStory):
        true_nats(row, tokenizer, LANGUAGE)
