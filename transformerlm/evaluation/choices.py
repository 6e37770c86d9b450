"""Multiple choice: which option does a model find likeliest behind a question?

A file holds one question per line:

    {"question": "The gull's name was Pip. One day,", "options": ["Pip flew away.", "Max flew away."], "answer": 0}

An option follows its question behind a blank. A diffusion model has bounds instead of likelihoods: all options of a
question are scored under the same random masks, so that what is drawn favours none (Nie et al. 2025, appendix B).

The built-in questions ask which ending keeps a story consistent. The wrong ones exchange a name or a thing that the
story told of before; the grammar gives each of them probability zero, so there is exactly one right answer.
"""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from transformerlm.evaluation.pairs import continuation_passage, encode_pair
from transformerlm.likelihood.scorer import Likelihood
from transformerlm.synthetic import stories
from transformerlm.tokenizer import Tokenizer

_SENTENCE_END = re.compile(r'(?<=[.!?"]) (?=[A-Z"])')
_WRONG_OPTIONS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its options, one of which is right."""

    question: str
    options: tuple[str, ...]
    answer: int
    """Index of the right option."""


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """How many questions were answered rightly."""

    num_questions: int
    accuracy: float
    """Taking the option of the highest likelihood."""
    accuracy_per_byte: float
    """Taking the option of the highest likelihood per byte, which favours short options less."""
    chance: float
    """Accuracy of guessing."""

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy over questions."""
        return (self.accuracy * (1 - self.accuracy) / self.num_questions) ** 0.5


def read_questions(path: Path | str) -> list[Question]:
    """Read a file of questions; raises ValueError naming the line that is wrong."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"choices.file: cannot read {path} ({error}); name a JSONL file of questions") from error
    questions = [parse_question(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise ValueError(f"choices.file: {path} holds no question; write one JSON object per line")
    return questions


def parse_question(line: str, place: str) -> Question:
    """Read one line; raises ValueError naming what is wrong with it."""
    example = '{"question": "...", "options": ["...", "..."], "answer": 0}'
    try:
        table = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error}); write {example}") from error
    if not isinstance(table, dict) or not isinstance(table.get("question"), str):
        raise ValueError(f"{place}: no question; write {example}")
    options, answer = table.get("options"), table.get("answer")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(each, str) and each for each in options):
        raise ValueError(f"{place}: options must be two texts or more, not {options!r}; write {example}")
    if type(answer) is not int or not 0 <= answer < len(options):
        raise ValueError(f"{place}: answer must be the index of an option, 0 to {len(options) - 1}, not {answer!r}")
    return Question(table["question"], tuple(options), answer)


def score_choices(
    likelihood: Likelihood, tokenizer: Tokenizer, questions: Sequence[Question], context_length: int
) -> ChoiceResult:
    """Answer every question; a question too long for the context loses its beginning.

    Raises ValueError if an option alone is too long.
    """
    passages, streams = [], []
    for number, question in enumerate(questions):
        for option in question.options:
            context, continuation = encode_pair(tokenizer, f"{question.question.rstrip()} ", option.lstrip())
            passages.append(continuation_passage(context, continuation, context_length))
            streams.append(number)
    nats = iter([score.nats for score in likelihood.score(passages, streams)])
    right = right_per_byte = 0
    for question in questions:
        found = list(islice(nats, len(question.options)))
        per_byte = [each / len(option.encode()) for each, option in zip(found, question.options, strict=True)]
        right += found.index(min(found)) == question.answer
        right_per_byte += per_byte.index(min(per_byte)) == question.answer
    total = len(questions)
    chance = sum(1 / len(question.options) for question in questions) / total
    return ChoiceResult(total, right / total, right_per_byte / total, chance)


def story_questions(count_wanted: int, seed: int = 0) -> list[Question]:
    """Return the built-in questions, the same on every machine."""
    return list(islice(_story_questions(seed), count_wanted))


def _story_questions(seed: int) -> Iterator[Question]:
    rng = random.Random(seed)
    for index in count():
        told = stories.parse(stories.story("test", 2 * index, seed))
        other = [stories.parse(stories.story("test", 2 * index + 1 + step, seed)).roles for step in range(8)]
        cuts = [match.start() for match in _SENTENCE_END.finditer(told.text)]
        if not cuts:
            continue
        beginning, ending = told.text[: cuts[-1]], told.text[cuts[-1] + 1 :]
        wrong = list(_inconsistent_endings(beginning, ending, told.roles, other))
        if len(wrong) < _WRONG_OPTIONS:
            continue
        options = [ending, *rng.sample(wrong, _WRONG_OPTIONS)]
        rng.shuffle(options)
        yield Question(beginning, tuple(options), options.index(ending))


def _inconsistent_endings(
    beginning: str, ending: str, roles: Mapping[str, str], others: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """Yield endings in which something is called by another story's name; no story goes on so."""
    seen = {ending}
    for role, name in roles.items():
        for other in others:
            changed = re.sub(rf"\b{re.escape(name)}\b", other.get(role, name), ending)
            if changed not in seen and stories.prefix_log_probability(f"{beginning} {changed}") == -math.inf:
                seen.add(changed)
                yield changed
