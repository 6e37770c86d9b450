"""Every open position belongs to one block, and the steps are divided over the blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformerlm.inference.plan import Block, plan_blocks


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 80), st.booleans())
def test_every_open_position_is_committed_once(is_open, block_length, extra, is_aligned):
    plan = plan_blocks(is_open, block_length, None, is_aligned)
    covered = [position for block in plan for position in range(block.start, block.end)]
    assert len(covered) == len(set(covered))
    assert {position for position in covered if is_open[position]} == {p for p, o in enumerate(is_open) if o}
    assert all(block.num_open == sum(is_open[block.start : block.end]) > 0 for block in plan)
    assert all(block.end - block.start <= block_length for block in plan)
    assert not is_aligned or all(block.start % block_length == 0 for block in plan)
    steps = len(plan) + extra
    granted = plan_blocks(is_open, block_length, steps, is_aligned)
    assert not plan or sum(block.steps for block in granted) == steps
    assert all(sum(map(block.quota, range(block.steps))) == block.num_open for block in granted)
    assert all(block.quota(0) > 0 and block.quota(block.steps) == 0 for block in granted)


def test_plan_of_the_reference_by_hand():
    assert plan_blocks([False] + [True] * 8, 4, 7) == [Block(1, 5, 4, 4), Block(5, 9, 4, 3)]
    assert [plan_blocks([False] + [True] * 8, 4, 7)[1].quota(step) for step in range(4)] == [2, 1, 1, 0]
    assert plan_blocks([False] * 3 + [True] * 5, 4, 2, is_aligned=True) == [Block(0, 4, 1, 1), Block(4, 8, 4, 1)]
    assert plan_blocks([False] * 3, 4, 3) == []


def test_fewer_steps_than_blocks_are_refused():
    with pytest.raises(ValueError, match="steps = 2 is fewer than the 3 blocks of 4 that 12 tokens make"):
        plan_blocks([True] * 12, 4, 2)
