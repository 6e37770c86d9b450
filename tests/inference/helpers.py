"""What tests of samplers share: a tiny vocabulary, and decoders called with few words."""

import torch

from transformerlm.inference.autoregressive import AutoregressiveSettings, decode_autoregressive
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.diffusion import DiffusionSettings, decode_diffusion
from transformerlm.inference.plan import Policy
from transformerlm.inference.request import row_seed
from transformerlm.inference.sampling import SamplingSettings, row_generators

MASK, END = 10, 9
PROMPTS = [[3, 1, 4], [1], [5, 6, 2, 6, 5]]


def continuing(prompts, total_length=12):
    return [Canvas.continuing(prompt, total_length) for prompt in prompts]


def without_end(prompts, total_length=12):
    """Canvases in which no end-of-text token may appear: every position is filled."""
    return [Canvas.continuing(prompt, total_length, total_length) for prompt in prompts]


def seeds_of(count, seed=7):
    return [row_seed(seed, row) for row in range(count)]


def autoregress(model, canvases, sampling=None, seeds=None, listener=None, **changes):
    settings = AutoregressiveSettings(**{"end_id": END, "mask_id": MASK, **changes})
    generators = row_generators(seeds or seeds_of(len(canvases)))
    return decode_autoregressive(model, canvases, settings, sampling or SamplingSettings(), generators, listener)


def diffuse(model, canvases, sampling=None, seeds=None, listener=None, policy="low_confidence", **changes):
    policy = Policy(policy) if isinstance(policy, str) else policy
    settings = DiffusionSettings(**{"mask_id": MASK, "end_id": END, "block_length": 4, "policy": policy, **changes})
    generators = row_generators(seeds or seeds_of(len(canvases)))
    return decode_diffusion(model, canvases, settings, sampling or SamplingSettings(), generators, listener)


class Recorder:
    """A listener that keeps everything and ends nothing."""

    def __init__(self):
        self.steps = []

    def __call__(self, changes):
        self.steps.append(list(changes))
        return ()


def denoised_by_hand(model, tokens):
    """Logits of one row, [seq, vocab], with the mask forbidden."""
    logits = model(torch.tensor([tokens]), is_causal=False)[0].detach()
    logits[:, MASK] = -torch.inf
    return logits
