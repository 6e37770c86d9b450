"""Every likelihood against the exact one, whatever stands beside a passage."""

import math

import pytest
import torch

from transformerlm.checkpoint import LoadedModel
from transformerlm.likelihood.exact import any_order_likelihood, block_diffusion_likelihood
from transformerlm.likelihood.score import CorpusScore, Passage
from transformerlm.likelihood.scorer import (
    AutoregressiveLikelihood,
    BlockDiffusionLikelihood,
    DiffusionLikelihood,
    LikelihoodSettings,
    kinds_of,
    open_likelihood,
)

MASK = 10
ROWS = torch.randint(10, (6, 7), generator=torch.Generator().manual_seed(3)).tolist()
UNEVEN = [row[: 3 + index] for index, row in enumerate(ROWS[:5])]


def chain_rule(model, row, start=1):
    log_p = model(torch.tensor([row]), is_causal=True)[0].log_softmax(-1)
    return -sum(log_p[index - 1, row[index]].item() for index in range(start, len(row)))


def test_autoregressive_score_is_the_chain_rule(make_model):
    model = make_model()
    passages = [*map(Passage.document, UNEVEN), Passage.continuation(ROWS[0][:4], ROWS[0][4:])]
    scores = AutoregressiveLikelihood(model, batch_size=4).score(passages)
    expected = [*(chain_rule(model, row) for row in UNEVEN), chain_rule(model, ROWS[0], start=4)]
    assert [score.nats for score in scores] == pytest.approx(expected, abs=1e-9)
    assert [score.num_tokens for score in scores] == [2, 3, 4, 5, 6, 3]
    assert not any(score.is_bound or score.standard_error for score in scores)


def test_greedy_continuations_are_recognised(make_model):
    model, context = make_model(), [3, 1, 4]
    best = list(context)
    for _ in range(3):
        best.append(int(model(torch.tensor([best]), is_causal=True)[0, -1].argmax()))
    other = [*best[:-1], (best[-1] + 1) % 10]
    scores = AutoregressiveLikelihood(model).score([Passage.document(row, 3) for row in (best, other)])
    assert [score.is_greedy for score in scores] == [True, False]


def test_a_score_depends_on_its_stream_and_not_on_its_neighbours(make_model):
    likelihood = DiffusionLikelihood(make_model(), MASK, LikelihoodSettings(draws=4, batch_size=3))
    passages = list(map(Passage.document, UNEVEN))
    together = likelihood.score(passages)
    alone = [likelihood.score([passage], [index])[0] for index, passage in enumerate(passages)]
    assert [score.nats for score in together] == pytest.approx([score.nats for score in alone], rel=1e-9)
    elsewhere = likelihood.score(passages, streams=[7, 8, 9, 10, 11])
    assert together[3].nats != pytest.approx(elsewhere[3].nats, rel=1e-6)


def test_the_bound_agrees_with_the_exact_one_for_rows_of_any_length(make_model):
    model = make_model()
    likelihood = DiffusionLikelihood(model, MASK, LikelihoodSettings(draws=6, batch_size=64))
    for row in UNEVEN[:3]:
        exact = any_order_likelihood(model, torch.tensor(row), MASK, is_given=[True] + [False] * (len(row) - 1))
        scores = likelihood.score([Passage.document(row)] * 200)
        total = CorpusScore.of(scores)
        error = torch.tensor([score.nats for score in scores]).std().item() / math.sqrt(200)
        assert abs(total.nats / 200 - exact.nelbo) < 3 * error
        assert total.is_bound


def test_options_of_one_stream_share_their_masks(make_model):
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, tokens, is_causal, valid=None):
            seen.append((tokens == MASK) & (torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid))
            return torch.zeros(*tokens.shape, 11, dtype=torch.float64)

    settings = LikelihoodSettings(draws=1, batch_size=1)
    options = [Passage.continuation([1, 2], end) for end in ([3, 4, 5, 6], [7, 8, 9, 3])]
    likelihood = DiffusionLikelihood(Watched(), MASK, settings)
    for stream in range(8):
        seen.clear()
        likelihood.score(options, [stream, stream])
        assert torch.equal(*seen)
    masks = set()
    for stream in range(8):
        seen.clear()
        likelihood.score(options, [2 * stream, 2 * stream + 1])
        masks |= {torch.equal(*seen)}
    assert False in masks


def test_what_the_model_cannot_see_whole_is_refused(make_model):
    with pytest.raises(ValueError, match="passage 0 has 7 tokens"):
        AutoregressiveLikelihood(make_model(), context_length=6).score([Passage.document(ROWS[0])])
    with pytest.raises(ValueError, match="nothing to predict a first token from"):
        AutoregressiveLikelihood(make_model()).score([Passage.document(ROWS[0], num_given=0)])


@pytest.mark.parametrize("mask_draw", ["exact_count", "complementary", "stratified"])
@pytest.mark.parametrize("shift_logits", [False, True])
def test_the_block_bound_agrees_with_the_exact_one_and_is_no_lower_than_the_nll(make_model, shift_logits, mask_draw):
    model = make_model(shift_logits=shift_logits)
    settings = LikelihoodSettings(draws=4, batch_size=128, mask_draw=mask_draw)
    likelihood = BlockDiffusionLikelihood(model, MASK, 3, settings)
    for passage in (Passage.document(ROWS[0]), Passage.gaps(ROWS[1], [2, 4, 5])):
        exact = block_diffusion_likelihood(model, torch.tensor(passage.tokens), 3, MASK, passage.is_given)
        scores = likelihood.score([passage] * 150)
        values = torch.tensor([score.nats for score in scores], dtype=torch.float64)
        error = values.std().item() / math.sqrt(150)  # nothing, where pairs of masks take every case
        assert abs(values.mean().item() - exact.nelbo) < 3 * error + 1e-9
        assert exact.nelbo >= exact.nll
        assert all(score.is_bound for score in scores)


def test_blocks_of_one_token_are_exact(make_model):
    model = make_model()
    likelihood = BlockDiffusionLikelihood(model, MASK, 1, LikelihoodSettings(batch_size=2))
    assert not likelihood.is_bound
    for score, row in zip(likelihood.score(list(map(Passage.document, UNEVEN))), UNEVEN, strict=True):
        exact = block_diffusion_likelihood(model, torch.tensor(row), 1, MASK, [True] + [False] * (len(row) - 1))
        assert exact.nll == pytest.approx(exact.nelbo, abs=1e-9)
        assert score.nats == pytest.approx(exact.nll, abs=1e-9)
        assert (score.standard_error, score.is_bound) == (0.0, False)


def test_blocks_of_one_token_with_shifted_logits_have_the_autoregressive_likelihood(make_model):
    class NeverAMask(torch.nn.Module):
        def forward(self, tokens, is_causal):
            return plain(tokens, is_causal=is_causal).index_fill(-1, torch.tensor(MASK), -torch.inf)

    plain, passages = make_model(), list(map(Passage.document, UNEVEN))
    blocks = BlockDiffusionLikelihood(make_model(shift_logits=True), MASK, 1).score(passages)
    causal = AutoregressiveLikelihood(NeverAMask()).score(passages)
    assert [score.nats for score in blocks] == pytest.approx([score.nats for score in causal], abs=1e-9)


def test_one_block_is_the_bound_of_masked_diffusion(make_model):
    model, passages = make_model(), [Passage.document(row) for row in ROWS]
    blocks = BlockDiffusionLikelihood(model, MASK, 7).score(passages)
    whole = DiffusionLikelihood(model, MASK).score(passages)
    assert [score.nats for score in blocks] == pytest.approx([score.nats for score in whole], rel=1e-9)


class _Tokenizer:
    mask_id = MASK


def test_a_checkpoint_is_scored_as_it_was_trained(make_model):
    def kind_of(objective, kind="auto", **shape):
        loaded = LoadedModel(make_model(**shape), _Tokenizer(), objective, folder=None)
        return type(open_likelihood(loaded, kind=kind))

    assert kind_of("autoregressive") is AutoregressiveLikelihood
    assert kind_of("masked_diffusion") is DiffusionLikelihood
    assert kind_of("block_diffusion", block_length=4) is BlockDiffusionLikelihood
    assert kind_of("joint") is AutoregressiveLikelihood
    assert kind_of("joint", "diffusion") is DiffusionLikelihood
    assert kinds_of("joint") == ("autoregressive", "diffusion")
    with pytest.raises(ValueError, match="kind = 'autoregressive' does not fit objective 'masked_diffusion'"):
        kind_of("masked_diffusion", "autoregressive")
