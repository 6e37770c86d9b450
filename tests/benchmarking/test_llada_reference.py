"""The published sampler and ours agree where neither draws."""

import torch

from benchmarking.llada_reference import llada_generate
from tests.inference.helpers import MASK, diffuse
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.sampling import SamplingSettings


def test_greedy_texts_are_those_of_the_published_sampler(make_model):
    for seed, steps in ((0, 12), (1, 6), (2, 3)):
        model = make_model(seed)
        prompts = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
        published = llada_generate(model, prompts, 16, 4, steps, 0.0, MASK).tolist()
        # an end-of-text id that no token has: the published sampler knows no early end
        canvases = [Canvas.continuing(prompt, 16) for prompt in prompts.tolist()]
        ours = diffuse(model, canvases, SamplingSettings(0.0), steps=steps, end_id=MASK)
        assert ours.rows == published
