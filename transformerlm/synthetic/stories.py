"""Little stories of exactly known probability: a corpus that needs no download and can grade a language model.

A story is a bijection with a sequence of categorical choices, so its probability is a product, any text can be read
back into the choices that wrote it, and the entropy per story is a finite sum:

    choice       alternative   probability   text
    opening        2 of  6        0.205
    kinds          2 of  2        0.429
    heroes         7 of 32        0.042      Hugo
    surname        4 of 30        0.065      Fiddlewick
    worlds         1 of 14        0.177      lived
    places         2 of  4        0.263      above a noisy harbour and
    habit          4 of 20        0.076      was always late.
    companion      1 of  5        0.305      His best friend was
    looks         15 of 20        0.027      a famous
    animals        1 of  6        0.274      gull called
    pets          31 of 50        0.010      Snowdrop, who
    ...            ...            ...        ...
    coda           3 of  5        0.154      As a reward, Snowdrop got
    treats         2 of  5        0.229      salty crackers.
                               -----------
                               exp(-60.969)  the whole story

What a language model has to find out: a hero keeps a name and a pronoun, a wish is mentioned again when it comes true,
a world has its own animals, treats and weather, and whoever saves the day is able to (a gull flies, a badger digs).

One grammar has three readers: `generate` draws choices, `parse` recovers them, `entropy_nats` sums over them.

    grammar.py             templates, choices, things to remember; choices -> text
    reading.py             text -> choices, or how far the text agrees with any story
    expectation.py         the sum over all stories
    story_grammar.py       the beats of a story, with story_problems.py for the middle of it
    story_lexicon.py       the words, with story_worlds_near.py and story_worlds_far.py

Unambiguity is a property of the grammar's wording (siblings differ before their futures can make up for it), so the
tests check it rather than this file: stories have one derivation, and the exact entropy equals the mean surprise. A
story may be the beginning of a longer one (with a last remark), so where to end is a choice as well: a model of stories
has to predict the end of the text, too.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Literal, get_args

from transformerlm.synthetic.expectation import Tally, expect
from transformerlm.synthetic.grammar import Decision
from transformerlm.synthetic.reading import Reading
from transformerlm.synthetic.story_grammar import STORY_GRAMMAR

Split = Literal["train", "validation", "test"]

_ROLES = ("hero", "pet", "animal", "place", "wish", "spot")


class NotAStory(ValueError):
    """A text that no sequence of choices can write.

    offset: characters that agree with some story; the text goes wrong right after them.
    expected: a few words that could stand there.
    """

    def __init__(self, text: str, offset: int, expected: tuple[str, ...]) -> None:
        self.offset = offset
        self.expected = expected
        before, found = text[max(0, offset - 30) : offset], text[offset : offset + 20]
        wanted = ", ".join(map(repr, expected))
        super().__init__(
            f"not a story from character {offset} on: after {before!r} comes {found!r}, where a story has {wanted}"
            if found
            else f"the story stops at character {offset}, after {before!r}; it could go on with {wanted}"
        )


@dataclass(frozen=True, slots=True)
class Story:
    """A story and the choices that wrote it.

    decisions: from left to right.  roles: who and what it is about (hero, pet, animal, place, wish; spot, if
    something is in the way).
    """

    text: str
    decisions: tuple[Decision, ...]
    roles: Mapping[str, str]

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the story's probability: the sum over its choices."""
        return math.fsum(decision.log_probability for decision in self.decisions)


def generate(rng: random.Random) -> str:
    """Return a random story: one paragraph of ASCII, no newline."""
    return STORY_GRAMMAR.write(lambda options: options.draw(rng.random()))


def story(split: Split, index: int, seed: int = 0) -> str:
    """Return story number `index` of a split, the same on every machine.

    Each story has its own generator, so the corpus has random access and no length.
    Raises ValueError on an unknown split or a negative index.
    """
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(get_args(Split))}")
    if index < 0:
        raise ValueError(f"story index {index} is negative: count from 0")
    digest = blake2b(f"{seed}/{split}/{index}".encode(), digest_size=16).digest()
    return generate(random.Random(int.from_bytes(digest, "big")))


def parse(text: str) -> Story:
    """Recover the choices that wrote a story. Raises NotAStory, which says where the text stops being one."""
    reading = Reading(STORY_GRAMMAR, text)
    for derivation in reading.derivations():
        roles = {role: thing.forms["name"] for role, thing in derivation.slots.items() if role in _ROLES}
        return Story(text, derivation.decisions, roles)
    raise NotAStory(text, reading.furthest, tuple(reading.expected)[:5])


def is_story(text: str) -> bool:
    """Tell whether a text is a story from beginning to end."""
    try:
        parse(text)
    except NotAStory:
        return False
    return True


def log_probability(text: str) -> float:
    """Return the exact natural logarithm of a story's probability. Raises NotAStory."""
    return parse(text).log_probability


def prefix_log_probability(text: str) -> float:
    """Return the natural logarithm of the probability that a story starts with `text`.

    0.0 for the empty text, -inf where no story starts so. A story may go on where another ends (with a last remark), so
    for a whole story this is at least its log_probability: ending, too, is a choice.
    """
    beginnings = Reading(STORY_GRAMMAR, text).beginnings()
    probabilities = [math.fsum(decision.log_probability for decision in each.decisions) for each in beginnings]
    if not probabilities:
        return -math.inf
    largest = max(probabilities)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in probabilities))


@cache
def _expectation() -> Tally:
    return expect(STORY_GRAMMAR)


def entropy_nats() -> float:
    """Return the entropy of a story, exact: no model can do better on average. Divide by ln 2 for bits."""
    return _expectation().entropy_nats


def expected_bytes() -> float:
    """Return the mean length of a story in UTF-8 bytes, exact (stories are ASCII)."""
    return _expectation().characters
