"""Policies commit what their definition says, row by row."""

import math

import pytest
import torch

from transformerlm.inference.plan import Policy
from transformerlm.inference.policies import (
    Candidates,
    choose_commits,
    entropies,
    next_hitting_time,
    remasking_coins,
)

END = 1
LEVELS = torch.tensor([0.95, 0.5, 0.8, 0.9])  # probability of token 0 at four positions; the rest is token 1's


def candidates(p=LEVELS, is_open=None, tokens=None, uniforms=None):
    log_probs = torch.stack((p, 1 - p), dim=-1).double().log()[None]
    shape = log_probs.shape[:2]
    is_open = torch.ones(shape, dtype=torch.bool) if is_open is None else torch.tensor([is_open])
    tokens = torch.zeros(shape, dtype=torch.int64) if tokens is None else torch.tensor([tokens])
    uniforms = torch.rand(shape, dtype=torch.float64) if uniforms is None else torch.tensor([uniforms]).double()
    return Candidates(log_probs, tokens, is_open, uniforms)


def chosen(policy, given, quota=1):
    commits = choose_commits(policy, given, torch.tensor([quota]), END)
    return commits[0].nonzero().flatten().tolist()


def test_quota_policies_take_the_surest_of_the_open():
    given = candidates(is_open=[False, True, True, True])
    for name in ("low_confidence", "margin", "entropy"):
        assert chosen(Policy(name), given, 2) == [2, 3]
    assert chosen(Policy("low_confidence"), given, 9) == [1, 2, 3]
    assert chosen(Policy("random"), candidates(uniforms=[0.1, 0.9, 0.2, 0.8]), 2) == [1, 3]


def test_confidence_is_of_the_drawn_token_and_margin_and_entropy_of_the_distribution():
    given = candidates(tokens=[1, 0, 0, 0])  # an unlikely draw where the distribution is sharpest
    assert chosen(Policy("low_confidence"), given) == [3]
    assert chosen(Policy("margin"), given) == chosen(Policy("entropy"), given) == [0]


def test_a_threshold_takes_all_above_it_and_at_least_one():
    assert chosen(Policy("threshold", threshold=0.85), candidates(), 4) == [0, 3]
    assert chosen(Policy("threshold", threshold=0.99), candidates(), 4) == [0]


@pytest.mark.parametrize(("factor", "count"), [(0.05, 1), (0.2, 1), (0.35, 2), (0.85, 3), (2.6, 4)])
def test_a_factor_asks_more_of_every_further_rank(factor, count):
    # ranks 1..4 have 0.95, 0.9, 0.8, 0.5 and need 1 - f/2, 1 - f/3, 1 - f/4, 1 - f/5
    assert len(chosen(Policy("factor", factor=factor), candidates(), 4)) == count


def test_an_entropy_bound_leaves_out_the_largest_of_the_sum():
    rising = entropies(torch.stack((LEVELS, 1 - LEVELS), -1).log()).sort().values.tolist()
    for bound, count in ((0.0, 1), (rising[0] + 1e-3, 2), (sum(rising[:2]) + 1e-3, 3), (sum(rising), 4)):
        assert len(chosen(Policy("entropy_bound", entropy_bound=bound), candidates(), 4)) == count


def test_adaptive_policies_never_commit_what_is_not_open():
    for name in ("threshold", "factor", "entropy_bound"):
        policy = Policy(name, threshold=0.0, factor=100.0, entropy_bound=100.0)
        assert chosen(policy, candidates(is_open=[False, True, False, True]), 4) == [1, 3]


def test_the_end_waits_until_nothing_else_is_left():
    policy = Policy("low_confidence", is_end_last=True)
    assert chosen(policy, candidates(tokens=[END, 0, 0, 0])) == [3]
    assert chosen(policy, candidates(tokens=[END, 0, 0, 0], is_open=[True, False, False, False])) == [0]


def test_entropy_of_a_certain_token_is_zero():
    assert entropies(torch.tensor([0.0, -math.inf])).item() == 0
    assert entropies(torch.tensor([0.5, 0.5]).log()).item() == pytest.approx(math.log(2))


def test_remasking_keeps_the_share_of_known_positions_on_schedule():
    torch.manual_seed(0)
    count, steps = 200_000, 5
    is_known = torch.zeros((1, count), dtype=torch.bool)
    for step in range(steps):
        uniforms = torch.rand((1, count), dtype=torch.float64)
        given = Candidates(torch.zeros((1, count, 2)), torch.zeros((1, count)).long(), ~is_known, uniforms)
        progress = torch.tensor([[step / steps, (step + 1) / steps]], dtype=torch.float64)
        commits, remasks = remasking_coins(Policy("remdm", remask_share=0.2), given, is_known, progress)
        assert not (commits & is_known).any()
        assert not (remasks & ~is_known).any()
        assert remasks.any() == (0 < step < steps - 1)
        is_known = (is_known | commits) & ~remasks
        assert is_known.double().mean().item() == pytest.approx((step + 1) / steps, abs=5e-3)
    assert is_known.all()


def test_hitting_times_are_the_largest_of_as_many_uniform_times():
    generator = torch.Generator().manual_seed(0)
    times = [next_hitting_time(1.0, 3, torch.rand((), generator=generator).item()) for _ in range(4000)]
    assert sum(times) / len(times) == pytest.approx(3 / 4, abs=0.01)  # E max of three uniforms
    assert next_hitting_time(0.5, 1, 0.0) == 0.5
