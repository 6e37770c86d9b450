"""The grid holds each combination once, and the front only what nothing beats."""

from hypothesis import given
from hypothesis import strategies as st

from benchmarking.sweep import make_grid, pareto_front
from transformerlm.inference.predictor import GenerationSettings


def test_the_grid_leaves_out_what_a_policy_does_not_look_at():
    lists = {
        "remasking": ("low_confidence", "threshold"),
        "steps": (10, 20),
        "confidence_threshold": (0.9, 0.8, 0.7),
        "temperature": (0.5,),
    }
    cells = make_grid(GenerationSettings(), lists)
    assert [cell.label for cell in cells] == [
        "remasking low_confidence, steps 10, temperature 0.5",
        "remasking low_confidence, steps 20, temperature 0.5",
        "remasking threshold, confidence_threshold 0.9, temperature 0.5",
        "remasking threshold, confidence_threshold 0.8, temperature 0.5",
        "remasking threshold, confidence_threshold 0.7, temperature 0.5",
    ]
    last = cells[-1].settings
    assert (last.policy.name, last.policy.threshold, last.sampling.temperature, last.steps) == (
        "threshold",
        0.7,
        0.5,
        None,
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_front_beats_or_equals_everything_and_nothing_beats_it(points):
    front = [points[index] for index in pareto_front(points)]
    for cost, quality in points:
        assert any(better_cost <= cost and better_quality >= quality for better_cost, better_quality in front)
        assert not any((cost <= c and quality > q) or (cost < c and quality >= q) for c, q in front)
