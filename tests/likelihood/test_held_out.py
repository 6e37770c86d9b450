"""Scores add up, and a bound is a bound."""

import torch

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.likelihood.held_out import score_rows

ROWS = torch.randint(10, (6, 7), generator=torch.Generator().manual_seed(3))


def test_autoregressive_score_is_the_chain_rule_given_the_first_token(make_model):
    model = make_model()
    score = score_rows(model, ROWS, None, torch.Generator(), batch_size=4)
    log_p = model(ROWS, is_causal=True).log_softmax(-1)[:, :-1].gather(-1, ROWS[:, 1:, None]).sum((1, 2))
    torch.testing.assert_close(score.row_nats, -log_p.detach())
    assert not score.is_bound


def test_diffusion_score_bounds_the_any_order_likelihood(make_model):
    model, mask = make_model(), 10

    class Conditioned(torch.nn.Module):  # scores tokens 1.. given token 0, as a model of the rest alone
        def forward(self, tokens, is_causal, valid=None):
            first = ROWS[:1, :1].expand(len(tokens), 1)
            return model(torch.cat((first, tokens), 1), is_causal=is_causal)[:, 1:]

    exact = any_order_likelihood(Conditioned(), ROWS[0, 1:], mask)
    score = score_rows(model, ROWS[:1].expand(200, 7), mask, torch.Generator().manual_seed(0), draws=6, batch_size=64)
    mean, error = score.nats / 200, score.standard_error_nats / 200
    assert abs(mean - exact.nelbo) < 3 * error
    assert mean > exact.nll
    assert score.is_bound
