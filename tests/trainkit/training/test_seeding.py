"""Seeds are stable across processes and differ between streams."""

import torch

from trainkit.training.seeding import make_generator, mix_seed


def test_mixed_seeds_are_pinned_because_resumed_runs_depend_on_them():
    assert mix_seed(0, "step", 1) == 8139267837304087206
    assert 0 <= mix_seed(-5, "evaluation", 10**12) < 2**63


def test_neighbouring_seeds_and_steps_do_not_share_noise():
    seeds = {mix_seed(seed, word, step) for seed in range(20) for word in ("step", "evaluation") for step in range(20)}
    assert len(seeds) == 20 * 2 * 20


def test_generators_of_the_same_parts_draw_the_same():
    draws = [torch.rand(4, generator=make_generator(torch.device("cpu"), 7, "step", 3)) for _ in range(2)]
    assert torch.equal(*draws)
