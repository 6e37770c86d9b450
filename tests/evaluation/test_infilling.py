"""Gaps: the posterior is the grammar's own, and a perfect model reaches it."""

import math

import numpy as np
import pytest
import torch

from transformerlm.checkpoint import LoadedModel
from transformerlm.evaluation.infilling import make_gaps, score_gaps
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.likelihood.scorer import DiffusionLikelihood, LikelihoodSettings
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.synthetic import hidden_markov, stories
from transformerlm.tokenizer import Tokenizer


class LetterOracle(TransformerLM):
    """A model in name, the forward-backward algorithm in truth; its tokens are those of the letters' tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__(ModelShape(tokenizer.vocab_size, 64, 8, 1, 1, 1, 8))
        self.ids = [tokenizer.encode(letter)[0] for letter in hidden_markov.SYMBOLS]

    def forward(self, tokens, *, is_causal, valid=None, selected=None, **others):
        symbols = np.full(tokens[:, 1:].shape, hidden_markov.UNKNOWN)
        for symbol, token in enumerate(self.ids):
            symbols[(tokens[:, 1:] == token).numpy()] = symbol
        logits = torch.full((*tokens.shape, self.shape.vocab_size), -math.inf, dtype=torch.float64)
        logits[:, 0, 0] = 0.0
        answers = torch.from_numpy(hidden_markov.letters_source().conditionals(symbols)).log()
        logits[:, 1:, self.ids] = answers.clamp(min=-1e4)
        return logits if selected is None else logits.flatten(0, 1)[selected]


@pytest.mark.parametrize("length", [1, 3])
def test_the_oracle_spends_the_posteriors_nats_and_fills_as_well_as_can_be(letters, length):
    gaps = make_gaps("synthetic/hidden_markov", letters, length, 30, 64)
    model = LetterOracle(letters)
    likelihood = DiffusionLikelihood(model, letters.mask_id, LikelihoodSettings(draws=60 * length - 59))
    predictor = Predictor(LoadedModel(model, letters, "masked_diffusion", None))
    result = score_gaps(likelihood, predictor, gaps, GenerationSettings(total_length=64, block_length=64))
    assert result.nats_per_token == pytest.approx(result.true_nats_per_token, abs=1e-9 if length == 1 else 0.04)
    chances = np.array([max(gap.posterior.values()) for gap in gaps])
    spread = math.sqrt((chances * (1 - chances)).sum()) / len(gaps)
    assert result.best_match == pytest.approx(chances.mean())
    assert result.exact_match < result.best_match + 4 * spread
    if length == 1:
        likeliest = [max(gap.posterior, key=gap.posterior.get) == gap.truth for gap in gaps]
        assert result.exact_match == pytest.approx(np.mean(likeliest))


def test_a_storys_posterior_is_that_of_whole_stories(words):
    for gap in make_gaps("synthetic/stories", words, 1, 4, 160):
        before, behind = gap.tokens[1 : gap.start], gap.tokens[gap.start + 1 : -1]
        texts = {filling: words.decode((*before, *filling, *behind)) for filling in gap.posterior}
        weights = {filling: math.exp(stories.log_probability(text)) for filling, text in texts.items()}
        total = sum(weights.values())
        assert gap.posterior == pytest.approx({filling: weight / total for filling, weight in weights.items()})
        assert gap.truth in gap.posterior


def test_no_other_word_of_the_vocabulary_fits_a_gap(words):
    """The posterior is whole: of the tokens that are tried, none outside it makes a story."""
    (gap,) = make_gaps("synthetic/stories", words, 1, 1, 160, seed=4)
    before, behind = gap.tokens[1 : gap.start], gap.tokens[gap.start + 1 : -1]
    tried = {*range(0, words.vocab_size - 2, 25), *(token for (token,) in gap.posterior)}
    found = {
        (token,)
        for token in tried
        if words.token_bytes(token).startswith(b" ")
        and words.token_bytes(token).isascii()
        and stories.is_story(words.decode((*before, token, *behind)))
    }
    assert found == set(gap.posterior)


def test_gaps_are_the_same_every_time_and_fit_the_context(words):
    first, again = (make_gaps("synthetic/stories", words, 1, 2, 120, seed=2) for _ in range(2))
    assert first == again
    assert all(len(gap.tokens) <= 120 for gap in first)


def test_what_cannot_be_had_is_said(words):
    with pytest.raises(ValueError, match="a token for each letter"):
        make_gaps("synthetic/hidden_markov", words, 1, 3, 160)
    with pytest.raises(ValueError, match="too few documents"):
        make_gaps("synthetic/stories", words, 1, 2, 8)
