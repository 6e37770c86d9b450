"""Exact any-order likelihood against brute force over all orders."""

import itertools
import math

import pytest
import torch

from transformerlm.likelihood.exact import any_order_likelihood, block_diffusion_likelihood
from transformerlm.objectives.masked_diffusion import forbid_token

MASK = 10


def order_log_probability(model, tokens, order):
    noised, total = torch.full_like(tokens, MASK), 0.0
    for position in order:
        log_p = forbid_token(model(noised[None], is_causal=False), MASK)[0, position].log_softmax(-1)
        total += log_p[tokens[position]].item()
        noised[position] = tokens[position]
    return total


def test_dynamic_programming_equals_all_orders(make_model):
    model, tokens = make_model(), torch.tensor([3, 1, 4, 1])
    with torch.no_grad():
        logs = [order_log_probability(model, tokens, order) for order in itertools.permutations(range(4))]
    exact = any_order_likelihood(model, tokens, MASK)
    assert exact.nll == pytest.approx(-math.log(sum(map(math.exp, logs)) / len(logs)), abs=1e-10)
    assert exact.nelbo == pytest.approx(-sum(logs) / len(logs), abs=1e-10)
    assert exact.nelbo > exact.nll


def test_probabilities_of_all_sequences_add_up_to_one(make_model):
    model = make_model(vocab_size=4)
    total = sum(
        math.exp(-any_order_likelihood(model, torch.tensor(tokens), 3).nll)
        for tokens in itertools.product(range(3), repeat=3)
    )
    assert total == pytest.approx(1.0, abs=1e-10)


def test_long_sequences_are_refused(make_model):
    with pytest.raises(ValueError, match="at most 12 tokens, not 13"):
        any_order_likelihood(make_model(), torch.zeros(13, dtype=torch.int64), MASK)


def test_given_tokens_are_conditions(make_model):
    model, tokens = make_model(), torch.tensor([3, 1, 4, 1, 5])
    is_given = [True, False, True, False, True]

    def log_p(noised, position):
        return forbid_token(model(torch.tensor([noised]), is_causal=False), MASK)[0, position].log_softmax(-1)

    with torch.no_grad():
        left = log_p([3, MASK, 4, MASK, 5], 1)[1] + log_p([3, 1, 4, MASK, 5], 3)[1]
        right = log_p([3, MASK, 4, MASK, 5], 3)[1] + log_p([3, MASK, 4, 1, 5], 1)[1]
    exact = any_order_likelihood(model, tokens, MASK, is_given)
    assert exact.nelbo == pytest.approx(-(left + right).item() / 2, abs=1e-10)
    assert exact.nll == pytest.approx(-math.log((math.exp(left) + math.exp(right)) / 2), abs=1e-10)


def test_probabilities_of_all_sequences_of_blocks_add_up_to_one(make_model):
    model = make_model(vocab_size=4)
    total = sum(
        math.exp(-block_diffusion_likelihood(model, torch.tensor(tokens), 2, 3).nll)
        for tokens in itertools.product(range(3), repeat=4)
    )
    assert total == pytest.approx(1.0, abs=1e-10)
