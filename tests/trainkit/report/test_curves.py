"""Curves are thinned without losing what one looks for, and broken lines lose nothing but themselves."""

import json

from hypothesis import given
from hypothesis import strategies as st

from trainkit.report.curves import read_curves, thin
from trainkit.report.run_report import select_samples


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=200), st.integers(2, 40))
def test_thinning_keeps_order_the_end_and_both_extremes(losses, max_points):
    records = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    kept = thin(records, "loss", max_points)
    assert len(kept) <= max_points + 1
    steps = [record["step"] for record in kept]
    assert steps == sorted(set(steps))
    assert kept[-1] == records[-1]
    known = [loss for loss in losses if loss is not None]
    if known:
        shown = [record["loss"] for record in kept if record["loss"] is not None]
        assert (min(shown), max(shown)) == (min(known), max(known))


def test_lines_that_are_no_records_are_left_out_and_gaps_stay_gaps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "mfu": 0.3}, {"step": 2, "validation_loss": 1.5}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n{"step": 3, "lo', encoding="utf-8")
    curves = read_curves(path)
    assert curves.steps == {"step": [1, 2], "loss": [2.0, None], "mfu": [None, 0.3]}
    assert curves.evaluations == {"step": [2], "validation_loss": [1.5]}
    assert read_curves(tmp_path / "missing.jsonl").num_steps == 0


def test_of_many_samples_whole_steps_are_left_out_and_the_first_and_last_stay():
    samples = [{"step": step, "prompt": "", "text": f"{step}.{row}"} for step in range(1, 101) for row in range(4)]
    chosen = select_samples(samples, max_samples=40)
    steps = [each["step"] for each in chosen]
    assert len(chosen) == 40
    assert (steps[0], steps[-1]) == (1, 100)
    assert all(steps.count(step) == 4 for step in steps)
    assert select_samples([{"step": "x"}, {"text": "no step"}]) == []
