"""Draws follow their distribution, and filters keep what they say."""

import pytest
import torch

from transformerlm.inference.sampling import SamplingSettings, keep_likely, row_generators, row_seed, sample_tokens

LOGITS = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5])


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return (((counts - expected) ** 2) / expected)[expected > 0].sum().item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_softmax(temperature):
    logits = LOGITS.expand(1, 20_000, 5)
    tokens = sample_tokens(logits, SamplingSettings(temperature), row_generators(0, 1))
    counts = torch.bincount(tokens.flatten(), minlength=5).double()
    assert chi_square(counts, (LOGITS.double() / temperature).softmax(-1)) < 18.5  # 4 degrees of freedom, p = 0.001


def test_zero_temperature_takes_the_most_likely():
    assert sample_tokens(LOGITS[None], SamplingSettings(0.0), row_generators(0, 1)).tolist() == [2]


def test_top_k_keeps_the_k_most_likely():
    assert keep_likely(LOGITS, 2, 1.0).isfinite().tolist() == [True, False, True, False, False]
    assert keep_likely(LOGITS, 99, 1.0).isfinite().all()


def test_top_p_keeps_the_fewest_that_reach_p():
    p = LOGITS.softmax(-1)  # sorted: 2, 0, 4, 1, 3
    at_two = (p[2] + p[0]).item()
    assert keep_likely(LOGITS, 0, at_two - 1e-4).isfinite().tolist() == [True, False, True, False, False]
    assert keep_likely(LOGITS, 0, at_two + 1e-4).isfinite().tolist() == [True, False, True, False, True]
    assert keep_likely(LOGITS, 0, 1e-9).isfinite().tolist() == [False, False, True, False, False]


def test_a_rows_draws_do_not_depend_on_its_neighbours():
    logits = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    together = sample_tokens(logits, SamplingSettings(), row_generators(4, 3))
    alone = sample_tokens(logits[2:], SamplingSettings(), [torch.Generator().manual_seed(row_seed(4, 2))])
    assert torch.equal(together[2:], alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"temperature": -1}, "temperature"), ({"top_k": -1}, "top_k"), ({"top_p": 0}, "top_p"), ({"top_p": 2}, "top_p")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**settings)
