"""Quotas add up and commits go where confidence is highest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformerlm.inference.policies import choose_commits, plan_quotas, token_confidence


@given(length=st.integers(1, 60), block_length=st.integers(1, 70), extra=st.integers(0, 80))
def test_every_mask_is_committed_once_in_as_many_steps_as_useful(length, block_length, extra):
    steps = -(-length // block_length) + extra
    plan = plan_quotas(length, block_length, steps)
    committed = {}
    for start, end, count in plan:
        committed[start, end] = committed.get((start, end), 0) + count
    assert all(count == end - start for (start, end), count in committed.items())
    assert [start for start, _ in committed] == list(range(0, length, block_length))
    assert len(plan) <= min(steps, length)
    assert all(count > 0 for *_, count in plan)


def test_plan_of_the_reference_by_hand():
    assert plan_quotas(8, 4, 6) == [(0, 4, 2), (0, 4, 1), (0, 4, 1), (4, 8, 2), (4, 8, 1), (4, 8, 1)]
    assert plan_quotas(5, 4, 3) == [(0, 4, 2), (0, 4, 2), (4, 5, 1)]
    assert plan_quotas(0, 4, 3) == []


def test_fewer_steps_than_blocks_are_refused():
    with pytest.raises(ValueError, match="steps = 2 is fewer than the 3 blocks of 4 that 12 tokens make"):
        plan_quotas(12, 4, 2)


def test_commits_are_the_most_confident_open_positions_per_row():
    confidence = torch.tensor([[0.9, 0.1, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4]])
    is_open = torch.tensor([[False, True, True, True], [True, True, True, True]])
    commits = choose_commits(confidence, is_open, torch.tensor([2, 1]))
    assert commits.tolist() == [[False, False, True, True], [False, False, False, True]]


def test_no_more_is_committed_than_is_open():
    commits = choose_commits(torch.rand(1, 4), torch.tensor([[True, False, False, False]]), torch.tensor([3]))
    assert commits.tolist() == [[True, False, False, False]]


def test_confidence_is_the_probability_of_the_chosen_token():
    logits = torch.tensor([[[0.0, 0.0], [0.0, 100.0]]])
    assert token_confidence(logits, torch.tensor([[1, 1]])).flatten().tolist() == pytest.approx([0.5, 1.0])
