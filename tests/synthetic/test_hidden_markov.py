"""The hidden Markov language knows everything about itself: held against sums over all sequences."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.sections.data import SYNTHETIC
from transformerlm.likelihood.exact import any_order_likelihood, autoregressive_nats
from transformerlm.likelihood.monte_carlo import EvaluationDraw
from transformerlm.likelihood.score import Passage
from transformerlm.likelihood.scorer import DiffusionLikelihood, LikelihoodSettings
from transformerlm.synthetic import hidden_markov
from transformerlm.synthetic.hidden_markov import DOCUMENT_LENGTH, SYMBOLS, UNKNOWN, HiddenMarkov, letters_source
from transformerlm.synthetic.languages import LANGUAGES
from transformerlm.synthetic.oracle import OracleDenoiser

LENGTH, NUM_SYMBOLS = 5, 3


@pytest.fixture(scope="module")
def source() -> HiddenMarkov:
    return HiddenMarkov.random(num_states=4, num_symbols=NUM_SYMBOLS, rng=np.random.default_rng(5))


@pytest.fixture(scope="module")
def sequences() -> np.ndarray:
    return np.array(list(itertools.product(range(NUM_SYMBOLS), repeat=LENGTH)))


@pytest.fixture(scope="module")
def probabilities(source, sequences) -> np.ndarray:
    """[sequences], by summing over every path of states: no recursion that the source might share."""
    paths = np.array(list(itertools.product(range(4), repeat=LENGTH + 1)))
    totals = []
    for sequence in sequences:
        weight = source.start[paths[:, 0]].copy()
        for position, symbol in enumerate(sequence):
            weight *= source.arcs[symbol, paths[:, position], paths[:, position + 1]]
        totals.append(weight.sum())
    return np.array(totals)


def test_sequences_have_the_probability_of_all_their_paths(source, sequences, probabilities):
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(source.log_probabilities(sequences), np.log(probabilities), atol=1e-12)


def test_the_entropy_is_the_mean_surprise(source, probabilities):
    expected = -(probabilities * np.log(probabilities)).sum()
    assert source.entropy_nats(LENGTH) == pytest.approx(expected, abs=1e-9)


def test_unknown_symbols_are_summed_over(source, sequences, probabilities):
    for pattern in sequences[::17]:
        known = np.array([True, False, True, True, False])
        fits = (sequences == pattern)[:, known].all(axis=1)
        asked = np.where(known, pattern, UNKNOWN)[None]
        assert source.log_probabilities(asked)[0] == pytest.approx(math.log(probabilities[fits].sum()), abs=1e-12)


def test_conditionals_are_ratios_of_sums_for_every_mask_pattern(source, sequences, probabilities):
    pattern = sequences[100]
    for known in itertools.product([True, False], repeat=LENGTH):
        found = source.conditionals(np.where(known, pattern, UNKNOWN)[None])[0]
        for position in range(LENGTH):
            others = np.array([each and i != position for i, each in enumerate(known)])
            fits = (sequences == pattern)[:, others].all(axis=1)
            counts = np.bincount(sequences[fits, position], probabilities[fits], minlength=NUM_SYMBOLS)
            np.testing.assert_allclose(found[position], counts / counts.sum(), atol=1e-12)


def test_samples_come_as_often_as_they_are_likely(source, sequences, probabilities):
    rng, count = np.random.default_rng(1), 4000
    drawn = np.array([source.sample(LENGTH, rng) for _ in range(count)])
    found = np.bincount(drawn @ NUM_SYMBOLS ** np.arange(LENGTH)[::-1], minlength=len(sequences))
    is_common = probabilities * count > 5
    expected = probabilities[is_common] * count
    chi_square = ((found[is_common] - expected) ** 2 / expected).sum()
    assert chi_square < is_common.sum() + 4 * math.sqrt(2 * is_common.sum())


def test_for_the_oracle_the_bound_the_likelihood_and_the_entropy_are_one(source, sequences, probabilities):
    oracle = OracleDenoiser(source)
    nelbo = nll = 0.0
    for sequence, probability in zip(torch.from_numpy(sequences), probabilities, strict=True):
        exact = any_order_likelihood(oracle, sequence, oracle.mask_id)
        assert exact.nelbo == pytest.approx(exact.nll, abs=1e-9)
        assert exact.nll == pytest.approx(-math.log(probability), abs=1e-9)
        nelbo += probability * exact.nelbo
        nll += probability * exact.nll
    assert nelbo == pytest.approx(source.entropy_nats(LENGTH), abs=1e-9)
    assert nll == pytest.approx(source.entropy_nats(LENGTH), abs=1e-9)


def test_the_oracle_scores_by_the_chain_rule_as_well(source, sequences, probabilities):
    oracle, tokens = OracleDenoiser(source), torch.from_numpy(sequences)
    first = -torch.from_numpy(source.predictions(sequences)[:, 0]).log().gather(1, tokens[:, :1]).squeeze(1)
    rest = autoregressive_nats(oracle, tokens).sum(-1)
    torch.testing.assert_close(first + rest, -torch.from_numpy(np.log(probabilities)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask_draw", get_args(EvaluationDraw))
def test_every_estimator_finds_the_likelihood_of_the_oracle(source, mask_draw):
    symbols = source.sample(LENGTH, np.random.default_rng(0))
    passage = Passage(tuple(symbols.tolist()), (False,) * LENGTH)
    likelihood = DiffusionLikelihood(
        OracleDenoiser(source), NUM_SYMBOLS, LikelihoodSettings(draws=6, mask_draw=mask_draw, batch_size=600)
    )
    values = np.array([score.nats for score in likelihood.score([passage] * 300)])
    error = values.std() / math.sqrt(len(values))
    assert error > 0
    assert abs(values.mean() + source.log_probabilities(symbols[None])[0]) < 3 * error


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(0, 5))
def test_a_gaps_posterior_is_what_its_fillings_are_worth(seed, gap_length, start):
    rng = np.random.default_rng(seed)
    source, total = HiddenMarkov.random(3, NUM_SYMBOLS, rng), 8
    symbols = source.sample(total, rng)
    posterior = source.gap_posterior(symbols, start, gap_length)
    assert sum(posterior.values()) == pytest.approx(1)
    assert len(posterior) == NUM_SYMBOLS**gap_length
    for gap, probability in posterior.items():
        filled = symbols.copy()
        filled[start : start + gap_length] = gap
        holed = filled.copy()
        holed[start : start + gap_length] = UNKNOWN
        whole, around = source.log_probabilities(np.stack([filled, holed]))
        assert math.log(probability) == pytest.approx(whole - around, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 5))
def test_a_sequence_costs_the_sum_of_its_predictions(seed, num_states, num_symbols):
    rng = np.random.default_rng(seed)
    source = HiddenMarkov.random(num_states, num_symbols, rng)
    symbols = source.sample(7, rng)
    steps = source.predictions(symbols[None])[0]
    chain = sum(math.log(steps[position, symbol]) for position, symbol in enumerate(symbols))
    assert chain == pytest.approx(source.log_probabilities(symbols[None])[0], abs=1e-9)


def test_impossible_sequences_have_no_probability():
    assert hidden_markov.prefix_log_probability("0") == -math.inf
    impossible = next(letter for letter in SYMBOLS if hidden_markov.prefix_log_probability(letter) == -math.inf)
    assert hidden_markov.log_probability(impossible * DOCUMENT_LENGTH) == -math.inf


def test_documents_are_reproducible_and_cost_the_entropy():
    texts = [hidden_markov.document("validation", index) for index in range(200)]
    assert texts[3] == hidden_markov.document("validation", 3) != hidden_markov.document("train", 3)
    values = [-hidden_markov.log_probability(text) for text in texts]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - hidden_markov.entropy_nats()) < 3 * error
    assert hidden_markov.log_probability(texts[0][:-1]) == -math.inf  # too short to be a document
    assert hidden_markov.prefix_log_probability(texts[0][:-1]) > -math.inf


def test_the_entropy_per_letter_approaches_the_rate():
    source, rate = letters_source(), letters_source().entropy_rate_nats()
    assert source.entropy_nats(400) - source.entropy_nats(399) == pytest.approx(rate, abs=1e-9)
    assert source.entropy_nats(1) != pytest.approx(rate, abs=1e-3)


def test_what_has_no_closed_form_says_so(source):
    with pytest.raises(ValueError, match="closed form"):
        source.entropy_rate_nats()
    with pytest.raises(ValueError, match="beliefs"):
        source.entropy_nats(40)


def test_the_configuration_knows_every_language():
    assert set(SYNTHETIC) == set(LANGUAGES)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_contains_its_documents_and_nothing_else(name):
    language = LANGUAGES[name]
    text = language.document("test", 0)
    assert language.contains(text)
    assert not language.contains(text[:-3])
    assert not language.contains("0" + text[1:])
    assert language.prefix_log_probability(text[:20]) >= language.log_probability(text)
