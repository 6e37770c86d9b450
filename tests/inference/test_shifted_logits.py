"""Samplers of models that predict each token at the position before it."""

import pytest
import torch

from tests.inference.helpers import END, MASK, PROMPTS, autoregress, diffuse, seeds_of, without_end
from transformerlm.inference.autoregressive import AutoregressiveSettings
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.inference.verified import decode_verified

GREEDY = SamplingSettings(temperature=0)


def test_blocks_of_one_token_write_what_autoregression_writes(make_model):
    model, canvases = make_model(shift_logits=True), without_end(PROMPTS)
    causal = autoregress(model, canvases, GREEDY)
    blocks = diffuse(model, canvases, GREEDY, block_length=1, is_block_causal=True, cache="block")
    assert blocks.rows == causal.rows
    for found, expected in zip(blocks.log_probs, causal.log_probs, strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("policy", ["low_confidence", "first_hitting", "threshold"])
def test_the_block_cache_is_exact(make_model, policy):
    model, canvases = make_model(shift_logits=True), without_end(PROMPTS)
    cached = diffuse(model, canvases, policy=policy, is_block_causal=True, cache="block")
    exact = diffuse(model, canvases, policy=policy, is_block_causal=True, cache="none")
    assert cached.rows == exact.rows
    for found, expected in zip(cached.log_probs, exact.log_probs, strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_caches_of_a_model_of_one_layer_are_exact(make_model, cache):
    model, canvases = make_model(shift_logits=True, num_layers=1), without_end(PROMPTS)
    cached, exact = (diffuse(model, canvases, cache=name) for name in (cache, "none"))
    assert cached.rows == exact.rows


def test_a_batched_row_is_what_it_is_alone(make_model):
    model, canvases = make_model(shift_logits=True), without_end(PROMPTS)
    together = diffuse(model, canvases, GREEDY, is_block_causal=True, cache="block")
    alone = [diffuse(model, [canvas], GREEDY, is_block_causal=True, cache="block").rows[0] for canvas in canvases]
    assert together.rows == alone


def test_the_sampler_sees_the_logits_that_training_trains(make_model):
    model = make_model(shift_logits=True)
    clean = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    noised = torch.where(torch.tensor([False, True, False, True, True, False, True, True]), MASK, clean)
    trained = model(torch.cat((noised, clean), dim=1), is_causal=False, block_length=4)
    ends = torch.tensor([[3, 3, 3, 3, 7, 7, 7, 7]])
    first = model(noised[:, :4], is_causal=False)
    second = model(torch.cat((clean[:, :4], noised[:, 4:]), dim=1), is_causal=False, last_visible=ends)[:, 4:]
    torch.testing.assert_close(trained, torch.cat((first, second), dim=1))


def test_verified_decoding_writes_what_autoregression_writes(make_model):
    model, canvases = make_model(shift_logits=True), without_end(PROMPTS)
    settings, seeds = AutoregressiveSettings(END, MASK), seeds_of(len(canvases))
    verified = decode_verified(model, canvases, settings, SamplingSettings(), row_generators(seeds), None, 3)
    assert verified.rows == autoregress(model, canvases).rows
