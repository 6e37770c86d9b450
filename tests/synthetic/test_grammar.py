"""The three readers of a grammar agree on a language small enough to list."""

import math
import random
from collections import Counter
from itertools import product

import pytest

from transformerlm.synthetic.expectation import expect
from transformerlm.synthetic.grammar import Choice, Grammar, Thing, choice
from transformerlm.synthetic.reading import Reading

HOT = Thing({"name": "desert", "the": "the desert"}, {"beasts": choice(["camel", "snake", "vulture"])})
COLD = Thing({"name": "ice", "the": "all the ice"}, {"beasts": choice({"bear": 3, "seal": 1})})
TINY = Grammar(
    {
        "start": ["<who=people>{who} <place=places>met a <place.beasts><detail>. {^who.she} ran from {place.the}!"],
        "people": {Thing({"name": "Ann", "she": "she"}): 2, Thing({"name": "Bo", "she": "he"}): 1},
        "places": [HOT, COLD],
        "detail": {"": 3, " in <colour>": 1, ", and then a <place.beasts>": 2},
        "colour": ["red", "green"],
    }
)


def every_text(grammar: Grammar, longest: int = 6, widest: int = 3) -> dict[tuple[int, ...], tuple[str, float]]:
    """Try every sequence of alternatives: indices actually used -> text and probability."""
    texts = {}
    for indices in product(range(widest), repeat=longest):
        used: list[int] = []
        probabilities = [1.0]

        def pick(options: Choice, indices=indices, used=used, probabilities=probabilities) -> int:
            index = indices[len(used)] if len(options.alternatives) > 1 else 0
            if len(options.alternatives) > 1:
                used.append(index)
            probabilities.append(options.probabilities[index])
            return index

        try:
            text = grammar.write(pick)
        except IndexError:  # this alternative does not exist
            continue
        texts[tuple(used)] = (text, math.prod(probabilities))
    return texts


TEXTS = every_text(TINY)


def test_probabilities_of_all_texts_sum_to_one():
    assert len(TEXTS) == 2 * (3 * (1 + 2 + 3) + 2 * (1 + 2 + 2))
    assert math.fsum(p for _, p in TEXTS.values()) == pytest.approx(1, abs=1e-12)


def test_every_text_has_one_derivation_of_its_probability():
    assert len({text for text, _ in TEXTS.values()}) == len(TEXTS)
    for text, probability in TEXTS.values():
        (derivation,) = Reading(TINY, text).derivations()
        assert math.exp(sum(d.log_probability for d in derivation.decisions)) == pytest.approx(probability)


def test_expectation_equals_the_sum_over_all_texts():
    tally = expect(TINY)
    assert tally.entropy_nats == pytest.approx(-math.fsum(p * math.log(p) for _, p in TEXTS.values()), abs=1e-12)
    assert tally.characters == pytest.approx(math.fsum(p * len(text) for text, p in TEXTS.values()), abs=1e-9)


def test_probability_of_a_beginning_equals_the_sum_over_texts_that_begin_so():
    for text, _ in TEXTS.values():
        for length in range(len(text) + 1):
            beginning = text[:length]
            expected = math.fsum(p for other, p in TEXTS.values() if other.startswith(beginning))
            beginnings = Reading(TINY, beginning).beginnings()
            found = math.fsum(math.exp(sum(d.log_probability for d in each.decisions)) for each in beginnings)
            assert found == pytest.approx(expected), beginning


def test_writing_draws_alternatives_as_often_as_their_probabilities_say():
    rng, count = random.Random(0), 20_000
    drawn = Counter(TINY.write(lambda options: options.draw(rng.random())) for _ in range(count))
    squares = [(drawn[text] - count * p) ** 2 / (count * p) for text, p in TEXTS.values()]
    degrees = len(TEXTS) - 1
    assert sum(squares) < degrees + 5 * math.sqrt(2 * degrees)


def test_an_ambiguous_grammar_is_read_in_all_its_ways():
    ambiguous = Grammar({"start": ["a<tail>", "ab"], "tail": ["b", "c"]})
    assert len(list(Reading(ambiguous, "ab").derivations())) == 2
    assert len(list(Reading(ambiguous, "ac").derivations())) == 1


def test_a_text_that_stops_early_or_goes_on_too_long_has_no_derivation():
    (text, _), *_ = TEXTS.values()
    assert not list(Reading(TINY, text[:-1]).derivations())
    assert not list(Reading(TINY, text + " ").derivations())


@pytest.mark.parametrize("markup", ["a < b", "{hero", "<a b>", "hero}"])
def test_stray_brackets_are_refused(markup):
    with pytest.raises(ValueError, match="stray bracket"):
        choice([markup])


@pytest.mark.parametrize("alternatives", [[], {}, {"a": 0}, {"a": 1, "b": -1}])
def test_a_choice_without_positive_weights_is_refused(alternatives):
    with pytest.raises(ValueError, match="positive weights"):
        choice(alternatives)
