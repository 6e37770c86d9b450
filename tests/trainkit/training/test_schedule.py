"""Learning rates are pure functions of the step being taken."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.training.schedule import Schedule


def rates(schedule: Schedule) -> list[float]:
    return [schedule(step) for step in range(1, schedule.max_steps + 1)]


def test_values_as_plotted():
    constant = Schedule("constant", 1.0, max_steps=6, warmup_steps=4)
    assert rates(constant) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = Schedule("cosine", 1.0, max_steps=6, min_learning_rate=0.2, warmup_steps=2)
    assert rates(cosine) == pytest.approx([0.5, 1.0, 0.6 + 0.4 * 2**-0.5, 0.6, 0.6 - 0.4 * 2**-0.5, 0.2])
    stable = Schedule("warmup_stable_decay", 1.0, max_steps=8, warmup_steps=2, decay_steps=4)
    assert rates(stable) == [0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


@given(
    name=st.sampled_from(["cosine", "constant", "warmup_stable_decay"]),
    warmup_steps=st.integers(0, 30),
    decay_steps=st.integers(0, 30),
    middle=st.integers(1, 30),
    minimum=st.floats(0.0, 1.0),
)
def test_rates_rise_to_the_maximum_and_never_rise_again(name, warmup_steps, decay_steps, middle, minimum):
    max_steps = warmup_steps + decay_steps + middle
    schedule = Schedule(name, 1.0, max_steps, minimum, warmup_steps, decay_steps)
    values = rates(schedule)
    peak = max(warmup_steps, 1) - 1
    assert values[:peak] == pytest.approx([step / warmup_steps for step in range(1, peak + 1)])
    assert values[0] > 0 or max_steps == 1
    after = values[peak:]
    assert all(earlier >= later - 1e-12 for earlier, later in pairwise(after))
    assert min(after) >= minimum - 1e-12
    assert values == rates(schedule), "asking must not change the answer"
    assert schedule(max_steps + 100) == values[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "linear"}, "unknown schedule 'linear': use cosine"),
        ({"warmup_steps": 11}, "warmup_steps 11 .* must fit into max_steps 10"),
        ({"min_learning_rate": 2.0}, "min_learning_rate 2.0 must lie between 0 and"),
    ],
)
def test_impossible_schedules_are_refused_with_a_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**({"name": "cosine", "max_learning_rate": 1.0, "max_steps": 10} | changes))
