"""The tokenizers of the two embedded languages, and a few questions."""

from pathlib import Path

import pytest

from transformerlm.evaluation.choices import Question, story_questions
from transformerlm.tokenizer import Tokenizer

TOKENIZERS = Path(__file__).parent.parent.parent / "config/resources/tokenizers"


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """Every byte a token."""
    return Tokenizer.load(TOKENIZERS / "letters")


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    """The stories' tokenizer."""
    return Tokenizer.load(TOKENIZERS / "stories_4k")


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    """The first built-in questions."""
    return story_questions(10)
