"""A model that knows the truth: its bound is tight, and every likelihood of its language is the entropy."""

import itertools
import math

import pytest
import torch

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.likelihood.score import CorpusScore, Passage
from transformerlm.likelihood.scorer import AutoregressiveLikelihood, DiffusionLikelihood, LikelihoodSettings

VOCAB, MASK, LENGTH = 3, 3, 5


class Oracle(torch.nn.Module):
    """A Markov chain over three tokens, with its exact conditionals given any positions, by enumeration."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        first = torch.rand(VOCAB, generator=rng, dtype=torch.float64)
        steps = torch.rand((VOCAB, VOCAB), generator=rng, dtype=torch.float64)
        first, steps = first / first.sum(), steps / steps.sum(-1, keepdim=True)
        self.texts = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
        self.p = first[self.texts[:, 0]] * steps[self.texts[:, :-1], self.texts[:, 1:]].prod(-1)

    def forward(self, tokens, is_causal, valid=None):
        """Logits of each position's token, or of the next one, given what is not masked; [batch, seq, vocab + 1]."""
        if is_causal:
            prefixes = [torch.where(torch.arange(LENGTH) <= i, pad(tokens), MASK) for i in range(tokens.shape[1])]
            return torch.stack([self.denoise(prefix)[:, i + 1] for i, prefix in enumerate(prefixes)], dim=1)
        return self.denoise(tokens)

    def denoise(self, tokens):
        fits = ((tokens[:, None] == self.texts) | (tokens[:, None] == MASK)).all(-1)  # [batch, texts]
        weights = fits * self.p
        is_token = torch.nn.functional.one_hot(self.texts, VOCAB + 1).double()  # [texts, seq, vocab + 1]
        joint = torch.einsum("bt,tsv->bsv", weights, is_token)
        return (joint / weights.sum(-1)[:, None, None]).log()


def pad(tokens):
    return torch.nn.functional.pad(tokens, (0, LENGTH - tokens.shape[1]), value=MASK)


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


def test_bound_likelihood_and_entropy_are_one(oracle):
    entropy = -(oracle.p * oracle.p.log()).sum().item()
    exact = [any_order_likelihood(oracle, text, MASK) for text in oracle.texts]
    assert [each.nelbo for each in exact] == pytest.approx((-oracle.p.log()).tolist(), abs=1e-9)
    assert [each.nll for each in exact] == pytest.approx((-oracle.p.log()).tolist(), abs=1e-9)
    assert sum(p * each.nelbo for p, each in zip(oracle.p.tolist(), exact, strict=True)) == pytest.approx(
        entropy, abs=1e-9
    )


def test_the_chain_rule_gives_the_same(oracle):
    given_first = [Passage.document(text) for text in oracle.texts.tolist()]
    starts = torch.stack([oracle.p[oracle.texts[:, 0] == token].sum() for token in range(VOCAB)])
    expected = (starts[oracle.texts[:, 0]].log() - oracle.p.log()).tolist()
    found = [score.nats for score in AutoregressiveLikelihood(oracle).score(given_first)]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("mask_draw", ["exact_count", "complementary", "stratified", "iid"])
def test_every_estimator_finds_it(oracle, mask_draw):
    text = oracle.texts[oracle.p.argmin()]
    settings = LikelihoodSettings(draws=4, mask_draw=mask_draw, batch_size=2048)
    scores = DiffusionLikelihood(oracle, MASK, settings).score([Passage.document(text.tolist(), 0)] * 1200)
    total = CorpusScore.of(scores)
    error = torch.tensor([score.nats for score in scores], dtype=torch.float64).std().item() / math.sqrt(1200)
    assert abs(total.nats / 1200 + oracle.p.min().log().item()) < 3 * error
