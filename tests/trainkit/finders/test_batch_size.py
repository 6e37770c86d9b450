"""The largest micro-batch that fits is found in few attempts, and a trial may die without its parent."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from finder_workers import ask_for_too_much, die, fail, hold

from trainkit.finders.batch_size import find_batch_size
from trainkit.finders.memory import Trial, memory_to_use_mb, try_in_child


@given(rows=st.integers(1, 600), first=st.integers(1, 600), most=st.integers(0, 700))
def test_the_largest_divisor_that_fits_is_found_and_nothing_larger_than_a_failure_is_tried(rows, first, most):
    attempts = []

    def attempt(size, accumulation):
        assert size * accumulation == rows, "the global batch stays what it is"
        assert all(size < failed for failed, fitted in attempts if not fitted)
        attempts.append((size, size <= most))
        return Trial(size <= most, None, 1.0)

    found = find_batch_size(rows, first, attempt)
    expected = max((size for size in range(1, rows + 1) if rows % size == 0 and size <= most), default=None)
    assert (found.best.rows if found.best else None) == expected
    assert len(attempts) == len({size for size, _ in attempts}), "nothing is tried twice"
    assert len(attempts) <= 11
    assert [each.rows for each in found.candidates] == sorted(size for size, _ in attempts)


@pytest.fixture(autouse=True)
def importable_worker(monkeypatch):
    """Let trial processes, which start from nothing, find the workers."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.slow  # each trial is a process that imports torch
def test_a_trial_within_its_limit_fits_and_one_beyond_it_is_ended():
    fitting = try_in_child(hold, (50,), limit_mb=3000)
    assert fitting.fits
    assert fitting.value == 50
    assert 50 < fitting.peak_mb < 3000
    beyond = try_in_child(hold, (100_000,), limit_mb=fitting.peak_mb + 200)
    assert not beyond.fits
    assert beyond.peak_mb < fitting.peak_mb + 1500, "it was ended soon, and long before the machine was full"


@pytest.mark.slow
@pytest.mark.parametrize("work", [die, ask_for_too_much])
def test_a_trial_that_the_system_kills_or_torch_refuses_does_not_fit_and_the_parent_lives(work):
    assert not try_in_child(work, (), limit_mb=10_000).fits


@pytest.mark.slow
def test_what_is_no_lack_of_memory_is_an_error_as_it_was():
    with pytest.raises(ValueError, match="a setting is wrong"):
        try_in_child(fail, (), limit_mb=10_000)


def test_there_is_some_memory_to_use_but_not_more_than_the_machine_has():
    total_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert 10 < memory_to_use_mb(torch.device("cpu")) < total_mb
