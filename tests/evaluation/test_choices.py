"""Multiple choice: right answers win, masks favour nobody, and files are read with care."""

import json
import math

import pytest

from transformerlm.evaluation.choices import Question, read_questions, score_choices, story_questions
from transformerlm.evaluation.pairs import continuation_passage, encode_pair
from transformerlm.likelihood.score import DocumentScore
from transformerlm.likelihood.scorer import DiffusionLikelihood, LikelihoodSettings
from transformerlm.synthetic import stories


class Grammar:
    """The story grammar as a likelihood: what no story says costs infinitely much."""

    is_bound = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def score(self, passages, streams=None):
        texts = [self.tokenizer.decode(passage.tokens[1:]) for passage in passages]
        return [DocumentScore(-stories.prefix_log_probability(text), 1) for text in texts]


def test_the_grammar_answers_every_built_in_question(words, questions):
    result = score_choices(Grammar(words), words, questions, 500)
    assert (result.accuracy, result.chance) == (1.0, 0.25)


def test_a_built_in_question_has_one_possible_answer(questions):
    for question in questions:
        possible = [
            stories.prefix_log_probability(f"{question.question} {option}") > -math.inf for option in question.options
        ]
        assert [index for index, each in enumerate(possible) if each] == [question.answer]


def test_the_right_answer_stands_anywhere(questions):
    assert len({question.answer for question in questions}) > 2
    assert story_questions(2) == questions[:2]


def test_options_are_scored_under_the_same_masks(make_model, words):
    """Two equal options get equal bounds, whatever is drawn: independent masks would give different ones."""
    model = make_model(vocab_size=words.vocab_size, context_length=64)
    likelihood = DiffusionLikelihood(model, words.mask_id, LikelihoodSettings(draws=3))
    seen = []
    score = DiffusionLikelihood.score

    class Spy:
        is_bound = True

        def score(self, passages, streams=None):
            seen.extend(score(likelihood, passages, streams))
            return seen

    question = Question("Once upon a time", ("a girl named Nora", "a girl named Nora"), 0)
    score_choices(Spy(), words, [question], 64)
    assert seen[0].nats == seen[1].nats
    assert math.isfinite(seen[0].nats)


def test_a_long_question_loses_its_beginning_and_an_option_is_kept(words):
    context, continuation = encode_pair(words, stories.story("test", 0), " and more")
    passage = continuation_passage(context, continuation, 20)
    assert passage.tokens[-len(continuation) :] == tuple(continuation)
    assert (len(passage.tokens), passage.num_scored) == (20, len(continuation))
    with pytest.raises(ValueError, match="no room"):
        continuation_passage(context, list(range(20)), 20)


def test_the_blank_belongs_to_the_continuation(words):
    for context, continuation in [("He was ", "happy"), ("He was", " happy")]:
        before, behind = encode_pair(words, context, continuation)
        assert words.decode(before[1:]) == "He was"
        assert words.decode(behind) == " happy"
        assert before[1:] + behind == words.encode("He was happy")


def test_a_file_is_read(tmp_path):
    path = tmp_path / "questions.jsonl"
    lines = [
        {"question": "A?", "options": ["b", "c"], "answer": 1},
        {"question": "", "options": ["x", "y"], "answer": 0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_questions(path) == [Question("A?", ("b", "c"), 1), Question("", ("x", "y"), 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "questions.jsonl:1: not JSON"),
        ('{"options": ["a", "b"], "answer": 0}', "no question"),
        ('{"question": "q", "options": ["a"], "answer": 0}', "two texts or more"),
        ('{"question": "q", "options": ["a", ""], "answer": 0}', "two texts or more"),
        ('{"question": "q", "options": ["a", "b"], "answer": 2}', "0 to 1, not 2"),
        ('{"question": "q", "options": ["a", "b"], "answer": true}', "not True"),
        ("", "holds no question"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "questions.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        read_questions(path)
