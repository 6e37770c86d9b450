"""A run that is killed at any point of a save goes on from a whole checkpoint and ends where it would have."""

import pytest
import torch
from kill_points import die_at_every_point


@pytest.mark.slow
@pytest.mark.parametrize("is_halfway", [False, True], ids=["before", "halfway"])
def test_a_kill_at_any_write_of_a_save_costs_no_more_than_that_save(is_halfway, spawn, tmp_path):
    process = spawn(die_at_every_point, str(tmp_path), is_halfway)
    process.join(300)
    assert process.exitcode == 0
    whole, results = torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "results.pt")
    assert len(results) >= 20, "a save has at least that many operations"
    steps = [result["step"] for result in results]
    assert steps == sorted(steps), "once the new checkpoint is visible it stays"
    assert set(steps) == {3, 4}
    for number, result in enumerate(results, start=1):
        assert result["code"] == -9
        assert result["is_latest_there"], number
        assert result["leftovers"] == [], number
        for name, tensor in whole.items():
            assert torch.equal(result["weights"][name], tensor), (number, name)
