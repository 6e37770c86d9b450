"""Stories: what is written can be read back, and its probability is exact."""

import math
import random
import re
import subprocess
import sys
from itertools import pairwise
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.synthetic import stories
from transformerlm.synthetic.reading import Reading
from transformerlm.synthetic.stories import NotAStory
from transformerlm.synthetic.story_grammar import STORY_GRAMMAR

FIRST = (
    "Hugo Fiddlewick lived above a noisy harbour and was always late. His best friend was a famous gull "
    "called Snowdrop, who collected noodles. More than sleep, Hugo wanted a golden ship in a bottle to "
    "dream of far oceans. Just after lunch, there was one, but it cost more than he had. Hugo sat down "
    'and thought very hard. "How about a bargain?" said Hugo. They had to scrub the barnacles, but by '
    "sunset the ship in a bottle was theirs. Hugo admired the golden ship in a bottle, and then "
    "Snowdrop. As a reward, Snowdrop got salty crackers."
)


@pytest.fixture(scope="module")
def samples() -> list[str]:
    """Four hundred stories of a split that nothing else uses."""
    return [stories.story("test", index, seed=7) for index in range(400)]


def test_the_first_story_is_the_same_on_every_machine():
    assert stories.story("train", 0) == FIRST


def test_another_process_tells_the_same_stories():
    code = "from transformerlm.synthetic.stories import story; print(story('validation', 3, seed=5))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == stories.story("validation", 3, seed=5) + "\n"


def test_a_story_is_replayed_from_its_choices(samples):
    for text in samples[:200]:
        parsed = stories.parse(text)
        assert STORY_GRAMMAR.replay(decision.index for decision in parsed.decisions) == text


def test_log_probability_is_the_sum_over_the_choices_that_were_drawn():
    rng = random.Random(1)
    for _ in range(100):
        drawn = []

        def pick(options, drawn=drawn):
            index = options.draw(rng.random())
            drawn.append(options.log_probabilities[index])
            return index

        text = STORY_GRAMMAR.write(pick)
        assert stories.log_probability(text) == pytest.approx(math.fsum(drawn), abs=1e-9)


def test_every_story_has_exactly_one_derivation(samples):
    for text in samples[:200]:
        assert len(list(Reading(STORY_GRAMMAR, text).derivations())) == 1, text


def test_entropy_is_the_mean_surprise(samples):
    surprises = [-stories.log_probability(text) for text in samples]
    standard_error = stdev(surprises) / math.sqrt(len(surprises))
    assert abs(fmean(surprises) - stories.entropy_nats()) < 4 * standard_error


def test_expected_bytes_is_the_mean_length():
    rng = random.Random(2)
    lengths = [len(stories.generate(rng).encode()) for _ in range(5000)]
    assert abs(fmean(lengths) - stories.expected_bytes()) < 4 * stdev(lengths) / math.sqrt(len(lengths))


def test_a_beginning_is_as_likely_as_all_stories_that_begin_so():
    rng, count = random.Random(3), 5000
    told = [stories.generate(rng) for _ in range(count)]
    for beginning in ("Once upon a time ", "Nobody who lived ", "If you stop ", "In a", "N", "Ella", "Long ago a c"):
        probability = math.exp(stories.prefix_log_probability(beginning))
        frequency = sum(text.startswith(beginning) for text in told) / count
        assert abs(frequency - probability) < 4 * math.sqrt(probability * (1 - probability) / count), beginning


def test_the_probabilities_of_first_letters_sum_to_one():
    letters = map(chr, range(32, 127))
    assert math.fsum(math.exp(stories.prefix_log_probability(letter)) for letter in letters) == pytest.approx(1)


def test_a_beginning_is_as_likely_as_its_continuations_by_one_character(samples):
    text = samples[0]
    for length in (1, 5, 30, 61, 100, 150, 200):
        beginning = text[:length]
        onwards = (math.exp(stories.prefix_log_probability(beginning + chr(code))) for code in range(32, 127))
        assert math.fsum(onwards) == pytest.approx(math.exp(stories.prefix_log_probability(beginning)))


def test_beginnings_grow_less_likely_and_go_on_or_end(samples):
    for text in samples[:10]:
        logs = [stories.prefix_log_probability(text[:length]) for length in range(0, len(text), 13)]
        assert logs[0] == 0
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(logs))
        ends, goes_on = stories.log_probability(text), stories.prefix_log_probability(text + " ")
        assert math.exp(ends) + math.exp(goes_on) == pytest.approx(
            math.exp(stories.prefix_log_probability(text)), rel=1e-9
        )


def test_what_no_story_starts_with_is_impossible(samples):
    for impossible in ("Zzz", "\n", samples[0] + " The end.", samples[0][:40] + "#"):
        assert stories.prefix_log_probability(impossible) == -math.inf


def test_a_text_after_the_end_is_refused_there(samples):
    for text in samples[:50]:
        with pytest.raises(NotAStory) as caught:
            stories.parse(text + " 10 more words.")
        assert len(text) <= caught.value.offset <= len(text) + 1


def test_a_hero_who_changes_names_is_caught_there(samples):
    for text in samples[:50]:
        hero = stories.parse(text).roles["hero"]
        last = [match.start() for match in re.finditer(rf"\b{hero}\b", text)][-1]
        if last == text.find(hero):
            continue
        other = "Zed" if hero[0] != "Z" else "Quo"
        with pytest.raises(NotAStory) as caught:
            stories.parse(text[:last] + other + text[last + len(hero) :])
        assert last <= caught.value.offset < last + len(other)
        assert any(hero.startswith(word) or word.startswith(hero) for word in caught.value.expected)


def test_an_error_says_where_and_what_was_expected():
    beginning = FIRST[: FIRST.index(" lived") + 1]
    with pytest.raises(NotAStory, match=f"from character {len(beginning)} on.*'dwelt .*'lived'") as caught:
        stories.parse(beginning + "dwelt in a tree.")
    assert caught.value.offset == len(beginning)
    with pytest.raises(NotAStory, match="the story stops at character 0"):
        stories.parse("")


def test_stories_are_one_ascii_paragraph_with_their_roles(samples):
    for text in samples[:200]:
        assert text.isascii()
        assert "\n" not in text
        assert "  " not in text
        assert text.count('"') % 2 == 0
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [bcdfgjklmnpqrstvwxyz]", text), text
        roles = stories.parse(text).roles
        assert all(text.count(roles[role]) >= 1 for role in ("hero", "pet", "animal", "wish"))


def test_splits_and_seeds_are_disjoint():
    corpora = [
        {stories.story(split, index, seed) for index in range(1500)}
        for split, seed in (("train", 0), ("validation", 0), ("test", 0), ("train", 1))
    ]
    assert sum(map(len, corpora)) == len(set().union(*corpora)) == 4 * 1500


def test_an_unknown_split_or_a_negative_index_is_refused():
    with pytest.raises(ValueError, match="use one of train, validation, test"):
        stories.story("training", 0)
    with pytest.raises(ValueError, match="count from 0"):
        stories.story("train", -1)


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 50), position=st.integers(0, 700), removed=st.integers(0, 12), inserted=st.text(max_size=8))
def test_a_mutated_story_is_a_story_or_fails_no_earlier_than_the_mutation(index, position, removed, inserted):
    text = stories.story("train", index)
    position = min(position, len(text))
    mutated = text[:position] + inserted + text[position + removed :]
    if stories.is_story(mutated):
        assert stories.log_probability(mutated) < 0
        return
    with pytest.raises(NotAStory) as caught:
        stories.parse(mutated)
    assert position <= caught.value.offset <= len(mutated)
    assert caught.value.expected
