"""Draws follow their distribution, and filters keep what they say."""

import pytest
import torch

from transformerlm.inference.sampling import (
    SamplingSettings,
    draw_uniforms,
    invert_distribution,
    keep_likely,
    penalize_repeats,
    row_generators,
    sample_tokens,
)

LOGITS = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5])


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return (((counts - expected) ** 2) / expected)[expected > 0].sum().item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_softmax(temperature):
    logits = LOGITS.expand(1, 20_000, 5)
    uniforms = draw_uniforms(row_generators([0]), (20_000,), torch.device("cpu"))
    tokens = sample_tokens(logits, SamplingSettings(temperature), uniforms)
    counts = torch.bincount(tokens.flatten(), minlength=5).double()
    assert chi_square(counts, (LOGITS.double() / temperature).softmax(-1)) < 18.5  # 4 degrees of freedom, p = 0.001


def test_zero_temperature_takes_the_most_likely():
    assert sample_tokens(LOGITS[None], SamplingSettings(0.0), torch.rand(1)).tolist() == [2]


def kept(**settings):
    return keep_likely(LOGITS, SamplingSettings(**settings)).isfinite().nonzero().flatten().tolist()


def test_top_k_keeps_the_k_most_likely():
    assert kept(top_k=2) == [0, 2]
    assert kept(top_k=99) == [0, 1, 2, 3, 4]


def test_top_p_keeps_the_fewest_that_reach_p():
    p = LOGITS.softmax(-1)  # sorted: 2, 0, 4, 1, 3
    at_two = (p[2] + p[0]).item()
    assert kept(top_p=at_two - 1e-4) == [0, 2]
    assert kept(top_p=at_two + 1e-4) == [0, 2, 4]
    assert kept(top_p=1e-9) == [2]


def test_min_p_keeps_what_is_a_fraction_as_likely_as_the_best():
    # relative to token 2: e^-1 = 0.37, e^-2 = 0.14, 1, e^-3 = 0.05, e^-1.5 = 0.22
    assert kept(min_p=0.2) == [0, 2, 4]
    assert kept(min_p=1.0) == [2]


def test_filters_follow_one_another():
    # top-k leaves 2 and 0 with 0.73 and 0.27, so 0.7 is reached by the first alone
    assert kept(top_k=2, top_p=0.7) == [2]


def test_a_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    is_seen = torch.tensor([True, False, False, True, False])
    assert penalize_repeats(LOGITS, is_seen, 2.0).tolist() == [0.5, 0.0, 2.0, -2.0, 0.5]


def test_tokens_of_probability_zero_are_never_drawn():
    p = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0], dtype=torch.float64)
    extremes = torch.tensor([0.0, 0.25 - 1e-17, 0.25, 1 - 2**-53], dtype=torch.float64)
    assert invert_distribution(p.expand(4, 5), extremes).tolist() == [1, 3, 3, 3]
    tiny = p * 3e-300
    assert invert_distribution(tiny.expand(4, 5), extremes).tolist() == [1, 3, 3, 3]


def test_rare_tokens_keep_their_probability():
    # a step of the distribution function far below what float32 can tell apart
    p = torch.tensor([1 - 1e-12, 1e-12], dtype=torch.float64)
    uniforms = torch.tensor([1 - 2e-12, 1 - 5e-13], dtype=torch.float64)
    assert invert_distribution(p.expand(2, 2), uniforms).tolist() == [0, 1]


def test_a_rows_numbers_do_not_depend_on_its_neighbours():
    together = draw_uniforms(row_generators([4, 5, 6]), (2, 7), torch.device("cpu"))
    assert torch.equal(together[2:], draw_uniforms(row_generators([6]), (2, 7), torch.device("cpu")))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 2}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**settings)
