"""Masked (absorbing) diffusion: recover randomly masked tokens from everything else.

LLaDA (Nie et al. 2025, arXiv 2502.09992), MDLM (Sahoo et al. 2024, 2406.07524).

    1. draw a time t per row, a mask rate p(t), and mask each token with probability p(t)
    2. predict the masked tokens with bidirectional attention; position i predicts token i, there is no shift
    3. loss = sum over masked positions of cross-entropy * w(t), divided by *all* tokens, masked or not

Its expectation is an upper bound on the negative log-likelihood per token (the NELBO). Other ways to draw masks
(noise.py) have the same expectation and another variance.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from transformerlm.models.fused_loss import Scores, Targets
from transformerlm.models.transformer import TransformerLM
from transformerlm.models.two_streams import block_starts
from transformerlm.objectives.base import LossOutput, NoiseContext
from transformerlm.objectives.mask_rates import loss_by_mask_rate
from transformerlm.objectives.noise import Noise, Spans

HeadMode = Literal["full", "gathered"]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One noised micro-batch, in one or two copies."""

    tokens: Tensor
    """[copies * batch, seq] int64: the clean tokens, perhaps cut to a shorter length."""
    weights: Tensor
    """[copies * batch, seq] float32: of the masked positions, else 0."""
    noised: Tensor
    """[copies * batch, seq] int64: the tokens with masks in them."""
    num_tokens: Tensor
    """[] what to divide the loss by: positions of one copy that are not padding, masked or not."""
    copies: int

    @property
    def is_masked(self) -> Tensor:
        """[copies * batch, seq] bool."""
        return self.weights > 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step masks together, how, and what a token sees."""

    noise: Noise
    block_length: int | None = None
    """Of block diffusion; None masks the row as a whole, under bidirectional attention."""
    lookahead: int | None = None
    """How far attention reaches to the right on its way from causal to bidirectional; None: all the way."""


@dataclass(frozen=True, slots=True)
class MaskedDiffusion:
    """The masked-diffusion training loss."""

    mask_id: int
    noise: Noise = field(default_factory=Noise)
    random_length_probability: float = 0.0
    """Share of steps whose rows are cut to a length uniform in 1 .. seq, so that short inputs are seen too."""
    head: HeadMode = "full"
    """"gathered" projects only masked positions onto the vocabulary: the same loss for less work."""
    gather_capacity: float = 0.75
    """Share of the positions the gathered head has room for; a batch with more masks takes the full head."""
    is_first_given: bool = False
    """Never mask the first token of a row, nor count it: for shifted logits, which have nothing to predict it from."""
    annealing_steps: int = 0
    """Steps over which attention widens from causal to bidirectional, for weights that were trained causally."""
    lookahead: int = 0

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], context: NoiseContext) -> LossOutput:
        """Score rows of tokens; the same context gives the same noise."""
        length = self.draw_length(batch["tokens"].shape[1], context)
        batch = {name: tensor[:, :length] for name, tensor in batch.items()}
        plan = self.plan_step(length, context)
        corruption = self.corrupt(batch, plan, context)
        selected = self.select_positions(corruption.is_masked) if self.head == "gathered" else None
        tokens, weights = corruption.tokens.flatten(), corruption.weights.flatten()
        if selected is not None:
            tokens, weights = tokens[selected], weights[selected]
        # A position that is not masked carries its token over and costs nothing: its weight is 0. A mask is never an
        # answer (the SUBS parameterisation).
        loss_sum, nats = self.predict(model, corruption, batch, plan, selected, Targets(tokens, weights, self.mask_id))
        masked = corruption.is_masked.sum() / corruption.copies
        valid = batch["valid"].repeat(corruption.copies, 1) if "valid" in batch else None
        return LossOutput(
            loss_sum,
            corruption.num_tokens.to(loss_sum.dtype),
            {
                "masked_share": masked.to(loss_sum.dtype),
                **loss_by_mask_rate(nats, corruption.is_masked, valid, selected),
            },
        )

    def plan_step(self, seq: int, context: NoiseContext) -> StepPlan:
        """Say what this step does; an evaluation never anneals, and takes the whole range of mask rates."""
        if context.step == 0:
            return StepPlan(self.noise.of_bound())
        if context.step > self.annealing_steps:
            return StepPlan(self.noise)
        return StepPlan(self.noise, lookahead=(context.step - 1) * (seq - 1) // self.annealing_steps)

    def corrupt(self, batch: Mapping[str, Tensor], plan: StepPlan, context: NoiseContext) -> Corruption:
        """Mask a micro-batch: the rows of it that the whole step's noise has for it."""
        tokens = batch["tokens"]
        may_mask = batch["valid"].clone() if "valid" in batch else torch.ones_like(tokens, dtype=torch.bool)
        if self.is_first_given:
            may_mask[:, 0] = False
        seq = tokens.shape[1]
        if plan.block_length is None:
            spans = Spans(torch.zeros((1, seq), dtype=torch.int64, device=tokens.device), seq, may_mask)
        else:
            starts = block_starts(seq, plan.block_length, batch.get("documents"), tokens.device)
            spans = Spans(starts, plan.block_length, may_mask)
        weights = plan.noise.draw_weights(spans, context)
        copies = len(weights) // len(tokens)
        tokens = tokens.repeat(copies, 1)
        return Corruption(tokens, weights, tokens.masked_fill(weights > 0, self.mask_id), may_mask.sum(), copies)

    def predict(
        self,
        model: nn.Module,
        corruption: Corruption,
        batch: Mapping[str, Tensor],
        plan: StepPlan,
        selected: Tensor | None,
        targets: Targets | None = None,
    ) -> Tensor | Scores:
        """Return what the targets cost; without, the logits: [copies * batch, seq, vocab_size] or [n, vocab_size]."""
        tokens, seq = corruption.noised, corruption.noised.shape[1]
        valid, documents = (
            batch[name].repeat(corruption.copies, 1) if name in batch else None for name in ("valid", "documents")
        )
        if plan.block_length is not None:
            tokens = torch.cat((tokens, corruption.tokens), dim=1)
        last_visible = None
        if plan.lookahead is not None:
            last_visible = (torch.arange(seq, device=tokens.device) + plan.lookahead).clamp(max=seq - 1)
            last_visible = last_visible.expand_as(tokens)
        return model(
            tokens,
            is_causal=False,
            valid=valid,
            selected=selected,
            last_visible=last_visible,
            documents=documents,
            block_length=plan.block_length,
            targets=targets,
        )

    def draw_length(self, seq: int, context: NoiseContext) -> int:
        """Return how many tokens of each row the step reads; an evaluation reads all."""
        if self.random_length_probability == 0 or context.step == 0:
            return seq
        is_cut, share = torch.rand(2, generator=context.rng, device=context.rng.device).tolist()
        shortest = 1 + self.is_first_given
        return shortest + int(share * (seq - shortest + 1)) if is_cut < self.random_length_probability else seq

    def select_positions(self, is_masked: Tensor) -> Tensor | None:
        """Choose a fixed number of positions that include every masked one, or None if they do not fit.

        A fixed number keeps shapes constant, which compilation wants. Dropping what does not fit would bias the loss.
        is_masked: [batch, seq] bool.  Returns [capacity] int64 indices into the flattened positions.
        """
        capacity = math.ceil(self.gather_capacity * is_masked.numel())
        if int(is_masked.sum()) > capacity:
            return None
        return is_masked.flatten().int().argsort(descending=True, stable=True)[:capacity]

    def training_flops(self, model: TransformerLM, seq: int) -> int:
        """Count one bidirectional pass, two for complementary masks; the gathered head is counted as a full one."""
        copies = 2 if self.noise.draw == "complementary" else 1
        return copies * model.flops_per_token(seq, is_causal=False)


def forbid_token(logits: Tensor, token: int) -> Tensor:
    """Give one token probability zero (the SUBS parameterisation: a mask is never an answer).

    logits: [..., vocab_size].  Returns the same shape, at least float32.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.index_fill(-1, torch.tensor(token, device=logits.device), -math.inf)
