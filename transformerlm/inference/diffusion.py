"""Masked-diffusion decoding, block by block (the reference sampler of LLaDA, Nie et al. 2025, arXiv 2502.09992).

prompt prompt prompt [ M M M M ][ M M M M ]      M: mask
prompt prompt prompt [ a M b M ][ M M M M ]      each step: predict every mask of the block,
prompt prompt prompt [ a c b d ][ M M M M ]      commit the most confident ones, mask the rest again
prompt prompt prompt [ a c b d ][ M e M f ]      then the next block
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformerlm.inference.policies import (
    Remasking,
    choose_commits,
    plan_quotas,
    random_confidence,
    token_confidence,
)
from transformerlm.inference.sampling import SamplingSettings, sample_tokens
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.masked_diffusion import forbid_token

StepCallback = Callable[[Tensor], None]
"""Called after each step with the tokens so far, [batch, total_length] int64 on the CPU, masks included."""


@dataclass(frozen=True, slots=True)
class DiffusionSettings:
    """How to unmask."""

    mask_id: int
    end_id: int
    steps: int
    """Passes through the model for a whole row."""
    block_length: int
    remasking: Remasking = "low_confidence"
    cfg_scale: float = 0.0
    """Classifier-free guidance: logits = un + (scale + 1) (cond - un), where `un` sees the prompt masked."""


@dataclass(frozen=True, slots=True)
class Window:
    """The active block of every row at one step."""

    positions: Tensor
    """[batch, block] int64."""
    is_inside: Tensor
    """[batch, block] bool, False beyond the end of a row's (shorter) block."""
    quotas: Tensor
    """[batch] int64, tokens to commit; 0 for a row that is finished."""

    def to(self, device: torch.device) -> "Window":
        """Return the window on a device."""
        return Window(self.positions.to(device), self.is_inside.to(device), self.quotas.to(device))


@torch.inference_mode()
def generate_diffusion(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    total_length: int,
    settings: DiffusionSettings,
    sampling: SamplingSettings,
    generators: Sequence[torch.Generator],
    on_step: StepCallback,
) -> tuple[list[list[int]], int]:
    """Fill every prompt up to total_length tokens.

    Prompts may differ in length; each row is what it would be alone. A row ends early once it is settled up to an
    end-of-text token. Returns the rows, prompts included and masks only behind an end-of-text token, and the number
    of passes through the model.
    """
    device = model.embedding.weight.device
    tokens = torch.full((len(prompts), total_length), settings.mask_id, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    tokens = tokens.to(device)
    is_prompt = torch.stack([torch.arange(total_length) < len(prompt) for prompt in prompts]).to(device)
    lengths = [len(prompt) for prompt in prompts]
    plans = [plan_quotas(total_length - length, settings.block_length, settings.steps) for length in lengths]
    evaluations, generators = 0, list(generators)
    for step in range(max(map(len, plans))):
        is_settled = settled_rows(tokens, is_prompt, settings)
        if all(is_settled):
            break
        window = make_window(plans, is_settled, lengths, step, settings.block_length).to(device)
        logits = block_logits(model, tokens, is_prompt, window, settings)
        candidates = sample_tokens(logits, sampling, generators)
        if settings.remasking == "random":
            confidence = random_confidence(tuple(candidates.shape), generators, device)
        else:
            confidence = token_confidence(logits, candidates)
        current = tokens.gather(1, window.positions)
        is_open = (current == settings.mask_id) & window.is_inside
        commits = choose_commits(confidence, is_open, window.quotas)
        # Beyond a shorter block the window repeats the block's last position; writing only commits leaves it alone.
        rows, columns = commits.nonzero(as_tuple=True)
        tokens[rows, window.positions[rows, columns]] = candidates[rows, columns]
        evaluations += 1
        on_step(tokens.to("cpu", copy=True))
    return tokens.tolist(), evaluations


def make_window(
    plans: Sequence[Sequence[tuple[int, int, int]]],
    is_settled: Sequence[bool],
    prompt_lengths: Sequence[int],
    step: int,
    block_length: int,
) -> Window:
    """Collect each row's block and quota at this step; rows without one take part but commit nothing.

    The window is always block_length wide, so that a row draws the same noise whichever rows it is batched with.
    """
    entries = []
    for plan, is_row_settled, offset in zip(plans, is_settled, prompt_lengths, strict=True):
        start, end, quota = plan[min(step, len(plan) - 1)] if plan else (-1, 0, 0)
        is_active = step < len(plan) and not is_row_settled
        entries.append((offset + start, offset + end, quota if is_active else 0))
    starts, ends, quotas = torch.tensor(entries).unbind(dim=1)
    positions = starts[:, None] + torch.arange(block_length)  # [batch, block]
    is_inside = positions < ends[:, None]
    return Window(torch.minimum(positions, ends[:, None] - 1), is_inside, quotas)


def block_logits(
    model: TransformerLM, tokens: Tensor, is_prompt: Tensor, window: Window, settings: DiffusionSettings
) -> Tensor:
    """Predict the active blocks, with guidance if asked for; the mask token has probability zero.

    Only the block goes through the head. Returns [batch, block, vocab_size], at least float32.
    """
    batch, seq = tokens.shape
    inputs, positions = tokens, window.positions
    if settings.cfg_scale > 0:
        inputs = torch.cat((tokens, tokens.masked_fill(is_prompt, settings.mask_id)))
        positions = torch.cat((positions, positions))
    selected = (torch.arange(len(inputs), device=tokens.device)[:, None] * seq + positions).flatten()
    logits = model(inputs, is_causal=False, selected=selected).view(*positions.shape, -1)
    if settings.cfg_scale > 0:
        conditional, unconditional = logits[:batch], logits[batch:]
        logits = unconditional + (settings.cfg_scale + 1) * (conditional - unconditional)
    return forbid_token(logits, settings.mask_id)


def settled_rows(tokens: Tensor, is_prompt: Tensor, settings: DiffusionSettings) -> list[bool]:
    """Say which rows have an end-of-text token with no mask before it, prompt aside."""
    is_end = (tokens == settings.end_id) & ~is_prompt
    is_open = tokens == settings.mask_id
    has_no_mask_before = is_open.cumsum(dim=1) == 0
    return (is_end & has_no_mask_before).any(dim=1).tolist()
