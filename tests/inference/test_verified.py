"""Verified decoding writes what plain autoregression writes, whatever the drafts are worth."""

import pytest
import torch

from tests.inference.helpers import END, MASK, PROMPTS, autoregress, continuing, seeds_of, without_end
from transformerlm.inference.autoregressive import AutoregressiveSettings
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.inference.verified import decode_verified

SETTINGS = AutoregressiveSettings(END, MASK)


def verify(model, canvases, sampling=None, draft_length=4, listener=None):
    generators = row_generators(seeds_of(len(canvases)))
    return decode_verified(
        model, canvases, SETTINGS, sampling or SamplingSettings(), generators, listener, draft_length=draft_length
    )


@pytest.mark.parametrize("draft_length", [1, 3, 8, 20])
@pytest.mark.parametrize("sampling", [SamplingSettings(0.0), SamplingSettings(), SamplingSettings(0.7, top_k=4)])
def test_verified_texts_are_those_of_autoregression(make_model, sampling, draft_length):
    holes = Canvas.with_holes([5, OPEN, 2, OPEN, OPEN, 5, OPEN])
    for seed in range(3):
        model = make_model(seed, weight_scale=3.0)
        canvases = [*continuing(PROMPTS), holes, *without_end([[7, 7]], 16)]
        plain, ours = autoregress(model, canvases, sampling), verify(model, canvases, sampling, draft_length)
        assert ours.rows == plain.rows
        assert [p for row in ours.log_probs for p in row] == pytest.approx([p for row in plain.log_probs for p in row])


def test_drafts_that_agree_save_passes(make_model):
    model = make_model()
    with torch.no_grad():  # every position predicts token 5, masked or not
        model.norm.weight.zero_()
        model.head.weight[5] += 1.0
        model.blocks[0].attention_norm.weight.zero_()
    canvases = without_end([[3, 1]], 16)
    plain = autoregress(model, canvases, SamplingSettings(0.0))
    ours = verify(model, canvases, SamplingSettings(0.0), draft_length=6)
    assert ours.rows == plain.rows
    assert ours.cost.passes == 1 + 2 * 2  # 14 tokens: one from the prompt, then 7 and 6 of 7
    assert plain.cost.passes == 14


def test_a_listener_ends_rows_inside_a_draft(make_model):
    def stop(changes):
        return [change.row for change in changes if change.step == 2]

    model, canvases = make_model(), without_end(PROMPTS)
    assert verify(model, canvases, listener=stop).rows == autoregress(model, canvases, listener=stop).rows


def test_a_repetition_penalty_is_refused(make_model):
    with pytest.raises(ValueError, match="repetition_penalty = 1"):
        verify(make_model(), continuing(PROMPTS), SamplingSettings(repetition_penalty=1.2))
