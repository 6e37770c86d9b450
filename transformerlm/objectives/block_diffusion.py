"""Block diffusion: autoregressive over blocks of tokens, masked diffusion inside each (BD3-LM, Arriola et al. 2025,
arXiv 2503.09573).

    block_length = 1            every block is its one token, masked: autoregression, exactly and without noise
    block_length = seq          masked diffusion

All blocks of a row train in one pass over two streams, noised and clean (models/two_streams.py); each block has a mask
rate of its own. Only the noised stream needs logits.
"""

from dataclasses import dataclass, replace

import torch

from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.base import NoiseContext
from transformerlm.objectives.masked_diffusion import MaskedDiffusion, StepPlan


@dataclass(frozen=True, slots=True)
class BlockDiffusion(MaskedDiffusion):
    """The block-diffusion training loss: masked diffusion whose spans are blocks."""

    block_length: int = 16
    """Of the finished model: what it is evaluated and sampled with."""
    mixed_lengths: tuple[int, ...] = ()
    """Further block lengths; each step draws one of these and block_length, all equally likely."""
    warmup_lengths: tuple[int, ...] = ()
    """Block lengths to begin with, such as (1, 4): weights that were trained autoregressively know 1 already."""
    warmup_steps: int = 0
    """Steps at each of them."""

    def plan_step(self, seq: int, context: NoiseContext) -> StepPlan:
        """Choose the step's block length; an evaluation takes block_length and the whole range of mask rates."""
        length = min(self.choose_length(context), seq)
        noise = self.noise.of_bound() if context.step == 0 else self.noise
        if length == 1:  # one token per block leaves nothing to draw
            noise = replace(noise, draw="exact_count")
        return StepPlan(noise, block_length=length)

    def choose_length(self, context: NoiseContext) -> int:
        """Return the block length of a step, the same on every rank."""
        if context.step == 0:
            return self.block_length
        stage = (context.step - 1) // self.warmup_steps if self.warmup_lengths else 0
        if stage < len(self.warmup_lengths):
            return self.warmup_lengths[stage]
        if not self.mixed_lengths:
            return self.block_length
        lengths = (*self.mixed_lengths, self.block_length)
        return lengths[int(torch.randint(len(lengths), (), generator=context.rng, device=context.rng.device))]

    def training_flops(self, model: TransformerLM, seq: int) -> int:
        """Count two streams, each of which sees half of the clean one on average, and one head."""
        copies = 2 if self.noise.draw == "complementary" else 1
        head = 6 * model.shape.padded_vocab_size * model.shape.d_model
        return copies * (2 * model.flops_per_token(seq, is_causal=True) - head)
