"""Each rule keeps its own, and what no rule keeps goes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.checkpointing.retention import Retention, rank_by_score


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(keep_last=2), {40, 50}),
        (Retention(keep_last=1, keep_best=1), {20, 50}),
        (Retention(keep_last=1, keep_best=2), {20, 40, 50}),
        (Retention(keep_last=1, keep_every=20), {20, 40, 50}),
        (Retention(keep_last=0), {10, 20, 30, 40, 50}),
    ],
)
def test_each_rule_keeps_its_own(retention, kept):
    scores = {10: 3.0, 20: 1.0, 30: None, 40: 2.0, 50: None}
    assert retention.survivors(scores, newest=50) == kept


def test_what_was_saved_last_is_kept_though_it_is_not_the_highest_step():
    assert Retention(keep_last=1).survivors({10: None, 50: None}, newest=10) == {10, 50}


def test_of_equal_scores_the_later_step_ranks_first_and_a_score_that_is_no_number_not_at_all():
    assert rank_by_score({1: 2.0, 2: 1.0, 3: 1.0, 4: math.nan, 5: None, 6: math.inf}) == [3, 2, 1]


@given(
    steps=st.sets(st.integers(0, 1000), min_size=1, max_size=20),
    keep_last=st.integers(1, 5),
    keep_best=st.integers(0, 5),
    data=st.data(),
)
def test_it_keeps_the_number_it_promises_and_invents_none(steps, keep_last, keep_best, data):
    scores = {step: data.draw(st.none() | st.floats(0, 10)) for step in steps}
    kept = Retention(keep_last, keep_best).survivors(scores, newest=max(steps))
    assert kept <= steps
    assert set(sorted(steps)[-keep_last:]) <= kept
    assert len(kept) <= keep_last + keep_best
    losses = sorted(score for score in scores.values() if score is not None)[:keep_best]
    assert sorted(scores[step] for step in kept if scores[step] is not None)[: len(losses)] == losses


@pytest.mark.parametrize("name", ["keep_last", "keep_best", "keep_every"])
def test_negative_numbers_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
        Retention(**{name: -1})
