"""Monte-Carlo bounds against the exact one; known-wrong estimators must be told apart."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.likelihood.monte_carlo import diffusion_nelbo, exact_count_masks, stratified_counts
from transformerlm.objectives.masked_diffusion import forbid_token

MASK = 10
SEQUENCE = torch.tensor([3, 1, 4, 1, 5, 9])


def z_score(values, exact):
    """Distance of the mean from the exact value in standard errors."""
    return abs(values.mean().item() - exact) / (values.std().item() / math.sqrt(values.numel()))


def masked_nats(model, is_masked):
    """Summed cross-entropy of the masked positions of SEQUENCE: [rows]."""
    logits = forbid_token(model(SEQUENCE.masked_fill(is_masked, MASK), is_causal=False), MASK)
    nats = -logits.log_softmax(-1).gather(-1, SEQUENCE.expand_as(is_masked)[..., None]).squeeze(-1)
    return torch.where(is_masked, nats, 0.0).sum(-1)


@given(length=st.integers(1, 40), draws=st.integers(1, 40))
def test_every_count_is_equally_frequent(length, draws):
    seen = torch.zeros(length + 1, dtype=torch.int64)
    for offset in range(length):
        counts = 1 + (offset + length * torch.arange(draws)) // draws
        seen += torch.bincount(counts, minlength=length + 1)
    assert seen[0] == 0
    assert (seen[1:] == draws).all()
    drawn = stratified_counts(length, draws, torch.Generator().manual_seed(0))
    assert any(torch.equal(drawn, 1 + (u + length * torch.arange(draws)) // draws) for u in range(length))


def test_masks_have_exactly_the_count_and_every_subset_is_equally_likely():
    hidden = torch.tensor([[False, True, True, True, True]]).expand(6000, 5)
    masks = exact_count_masks(hidden, torch.full((6000,), 2), torch.Generator().manual_seed(0))
    assert not masks[:, 0].any()
    assert (masks.sum(-1) == 2).all()
    codes = (masks.long() * 2 ** torch.arange(5)).sum(-1)
    frequencies = torch.unique(codes, return_counts=True)[1]
    assert len(frequencies) == 6
    assert (((frequencies - 1000) ** 2) / 1000).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_estimate_agrees_with_the_exact_bound(make_model, seed):
    model, rows = make_model(seed), 400
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    given_none = torch.zeros((rows, 6), dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    estimates = diffusion_nelbo(model, SEQUENCE.expand(rows, 6), given_none, MASK, 6, rng)
    assert estimates.shape == (rows, 6)
    assert z_score(estimates.mean(-1), exact) < 3


def test_given_tokens_are_conditions(make_model):
    model, rows = make_model(), 2000
    is_given = torch.tensor([True, True, True, True, False, True]).expand(rows, 6)
    estimates = diffusion_nelbo(model, SEQUENCE.expand(rows, 6), is_given, MASK, 1, torch.Generator())
    noised = SEQUENCE.clone()
    noised[4] = MASK
    log_p = forbid_token(model(noised[None], is_causal=False), MASK)[0, 4].log_softmax(-1)[SEQUENCE[4]]
    torch.testing.assert_close(estimates, torch.full_like(estimates, -log_p.item()))


@torch.no_grad()
def test_realised_count_weights_on_forced_bernoulli_masks_are_biased(make_model):
    model, rows = make_model(), 20_000
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    rng = torch.Generator().manual_seed(0)
    is_masked = torch.rand((rows, 6), generator=rng) < torch.rand((rows, 1), generator=rng)
    is_masked[~is_masked.any(-1), 0] = True  # "at least one mask"
    wrong = masked_nats(model, is_masked) * 6 / is_masked.sum(-1)
    assert z_score(wrong, exact) > 3


@torch.no_grad()
def test_half_to_even_rounding_of_counts_is_biased(make_model):
    model, rows = make_model(), 40_000
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    rng = torch.Generator().manual_seed(0)
    first = torch.randint(1, 7, (rows,), generator=rng)
    # Four draws spread 6/4 apart, as published code does: every second one falls on .5 and rounds to an even count.
    counts = (((first + (torch.arange(rows) % 4) * 1.5).round().long() - 1) % 6) + 1
    is_masked = exact_count_masks(torch.ones((rows, 6), dtype=torch.bool), counts, rng)
    assert z_score(masked_nats(model, is_masked) * 6 / counts, exact) > 3


def test_a_row_with_nothing_to_score_is_refused(make_model):
    with pytest.raises(ValueError, match="no token to score"):
        diffusion_nelbo(make_model(), SEQUENCE[None], torch.ones((1, 6), dtype=torch.bool), MASK, 1, torch.Generator())
