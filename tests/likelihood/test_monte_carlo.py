"""Monte-Carlo bounds against the exact one; known-wrong estimators must be told apart."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.likelihood.monte_carlo import (
    EvaluationDraw,
    combine_draws,
    draw_span_weights,
    exact_count_weights,
    stratified_counts,
)
from transformerlm.objectives.masked_diffusion import forbid_token

MASK, LENGTH = 10, 6
SEQUENCE = torch.tensor([3, 1, 4, 1, 5, 9])
DRAWS = get_args(EvaluationDraw)


def z_score(values, exact):
    """Distance of the mean from the exact value in standard errors."""
    return abs(values.mean().item() - exact) / (values.std().item() / math.sqrt(values.numel()))


@torch.no_grad()
def masked_nats(model, is_masked):
    """Cross-entropy of the masked positions of SEQUENCE, 0 elsewhere: [rows, length]; one pass per distinct mask."""
    distinct, where = is_masked.unique(dim=0, return_inverse=True)
    logits = forbid_token(model(SEQUENCE.masked_fill(distinct, MASK), is_causal=False), MASK)
    nats = -logits.log_softmax(-1).gather(-1, SEQUENCE.expand_as(distinct)[..., None]).squeeze(-1)
    return torch.where(distinct, nats, 0.0)[where]


def estimate(model, mask_draw, passages, draws):
    """Mean over the draws of each of many passages over SEQUENCE: [passages]."""
    weights = torch.stack(draw_span_weights([[LENGTH]] * passages, draws, mask_draw))
    nats = masked_nats(model, weights.flatten(0, 1) > 0).view_as(weights)
    return (nats * weights).sum(-1).mean(-1)


def realised_count_on_forced_bernoulli_masks(model, rows):
    """Known to be wrong: independent masks, at least one of them, weighted by L / (realised count)."""
    rng = torch.Generator().manual_seed(0)
    is_masked = torch.rand((rows, LENGTH), generator=rng) < torch.rand((rows, 1), generator=rng)
    is_masked[~is_masked.any(-1), 0] = True
    return masked_nats(model, is_masked).sum(-1) * LENGTH / is_masked.sum(-1)


def half_to_even_counts(model, rows):
    """Known to be wrong: four draws 6/4 apart, rounded; every second one falls on .5 and goes to an even count."""
    rng = torch.Generator().manual_seed(0)
    first = torch.randint(1, LENGTH + 1, (rows,), generator=rng)
    counts = (((first + (torch.arange(rows) % 4) * 1.5).round().long() - 1) % LENGTH) + 1
    weights = exact_count_weights(torch.rand((rows, LENGTH), generator=rng, dtype=torch.float64), counts)
    return (masked_nats(model, weights > 0) * weights).sum(-1)


@given(length=st.integers(1, 40), draws=st.integers(1, 40))
def test_every_count_is_equally_frequent(length, draws):
    seen = sum(torch.bincount(stratified_counts(length, draws, j), minlength=length + 1) for j in range(length))
    assert seen[0] == 0
    assert (seen[1:] == draws).all()


def test_masks_have_exactly_the_count_and_every_subset_is_equally_likely():
    keys = torch.rand((6000, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = exact_count_weights(keys, torch.full((6000,), 2))
    assert set(weights.flatten().tolist()) == {0.0, 2.0}
    assert ((weights > 0).sum(-1) == 2).all()
    codes = ((weights > 0).long() * 2 ** torch.arange(4)).sum(-1)
    frequencies = torch.unique(codes, return_counts=True)[1]
    assert len(frequencies) == 6
    assert (((frequencies - 1000) ** 2) / 1000).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), pairs=st.integers(1, 4), seed=st.integers(0, 99))
def test_complementary_pairs_mask_every_position_exactly_once(sizes, pairs, seed):
    (weights,) = draw_span_weights([sizes], 2 * pairs, "complementary", seed)
    is_masked = (weights > 0).view(pairs, 2, sum(sizes))
    assert (is_masked.sum(1) == 1).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mask_draw", DRAWS)
def test_every_estimator_agrees_with_the_exact_bound(make_model, mask_draw, seed):
    model = make_model(seed)
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    assert z_score(estimate(model, mask_draw, passages=1200, draws=4), exact) < 3


@pytest.mark.parametrize("wrong", [realised_count_on_forced_bernoulli_masks, half_to_even_counts])
def test_known_wrong_estimators_do_not(make_model, wrong):
    model = make_model()
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    assert z_score(wrong(model, 40_000), exact) > 3


def test_exact_counts_vary_less_than_independent_masks(make_model):
    model = make_model()
    spread = {mask_draw: estimate(model, mask_draw, passages=600, draws=4).std().item() for mask_draw in DRAWS}
    assert spread["exact_count"] < 0.6 * spread["stratified"]
    assert spread["complementary"] < 0.6 * spread["stratified"]


def test_the_standard_error_of_a_passage_is_what_repetition_shows(make_model):
    model, draws = make_model(), 64
    for mask_draw in ("iid", "complementary"):
        weights = torch.stack(draw_span_weights([[LENGTH]] * 200, draws, mask_draw))
        estimates = (masked_nats(model, weights.flatten(0, 1) > 0).view_as(weights) * weights).sum(-1)
        error = torch.tensor([combine_draws(each, mask_draw)[1] for each in estimates]).square().mean().sqrt().item()
        seen = estimates.mean(-1).std().item()
        assert error > 0.8 * seen  # stratified pairs: on the safe side
        assert mask_draw == "complementary" or error < 1.25 * seen


def test_a_single_draw_knows_no_error():
    assert combine_draws(torch.tensor([3.0], dtype=torch.float64), "exact_count") == (3.0, math.inf)


def test_passages_of_one_stream_share_masks_position_by_position():
    long, short, other = draw_span_weights([[4, 4], [4, 2], [4, 4]], 8, seed=5, streams=[3, 3, 4])
    assert torch.equal(long[:, :4], short[:, :4])
    assert not torch.equal(long, other)


def test_an_odd_number_of_complementary_draws_is_refused():
    with pytest.raises(ValueError, match=r"draws = 3 .* use an even number"):
        draw_span_weights([[4]], 3, "complementary")
