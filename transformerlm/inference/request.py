"""What can be asked of a model, checked before any weights are loaded: needs its description only, not torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np

from transformerlm.inference.canvas import OPEN, Canvas, open_positions, split_template
from transformerlm.inference.plan import Policy, PolicyName, plan_blocks
from transformerlm.models.shape import ModelShape
from transformerlm.tokenizer import MASK, Tokenizer

GenerationMode = Literal["auto", "autoregressive", "diffusion", "verified"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What weights trained for an objective can do."""

    modes: tuple[GenerationMode, ...]
    """The first one is what "auto" means."""
    caches: tuple[str, ...] = ("none",)
    """Of diffusion; the first one is what "auto" means."""
    is_block_causal: bool = False
    """Whether a token never sees a later block when denoising."""


ABILITIES = {
    "autoregressive": Abilities(("autoregressive",)),
    "masked_diffusion": Abilities(("diffusion",), ("none", "prefix", "dual")),
    "block_diffusion": Abilities(("diffusion",), ("block", "none"), is_block_causal=True),
    "joint": Abilities(("diffusion", "autoregressive", "verified"), ("none", "prefix", "dual")),
}


def abilities_of(objective: str) -> Abilities:
    """Return what a checkpoint's objective allows; raises ValueError if it is none of ours."""
    if objective not in ABILITIES:
        raise ValueError(
            f"this version cannot generate from a checkpoint of objective {objective!r}; "
            f"it knows {', '.join(ABILITIES)}"
        )
    return ABILITIES[objective]


def choose_mode(mode: GenerationMode, objective: str) -> GenerationMode:
    """Return how to generate; raises ValueError if the weights were not trained for it."""
    offered = abilities_of(objective).modes
    if mode == "auto":
        return offered[0]
    if mode not in offered:
        raise ValueError(
            f"generation_mode = {mode!r} needs weights trained for it; this checkpoint's objective is {objective!r}: "
            f"use generation_mode = {' or '.join(repr(each) for each in ('auto', *offered))}"
        )
    return mode


def choose_cache(cache: str, objective: str) -> str:
    """Return the cache of diffusion; raises ValueError if the weights do not allow it."""
    offered = abilities_of(objective).caches
    if cache == "auto":
        return offered[0]
    if cache not in offered:
        reason = "is exact for block-causal models only" if cache == "block" else "is made for bidirectional attention"
        raise ValueError(
            f"cache = {cache!r} {reason}, and this checkpoint's objective is {objective!r}: "
            f"use cache = {' or '.join(repr(each) for each in ('auto', *offered))}"
        )
    return cache


def row_seed(seed: int, row: int) -> int:
    """Return the seed of one row, so that generating row r alone with it repeats row r of a batch."""
    return seed + 1_000_003 * row


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """Tokenize a prompt as the beginning of a document, which follows an end-of-text token in training.

    Returns int64 [1 + tokens].  Raises ValueError if the text holds the mask token.
    """
    if tokenizer.mask_id is not None and MASK in prompt:
        raise ValueError(
            f"the prompt holds the mask token {MASK}; to have a gap filled in, write it as a template with "
            "{mask:8} for 8 tokens"
        )
    ids = tokenizer.encode_array(prompt, allowed_special="none")
    return np.concatenate([[tokenizer.end_of_text_id], ids], dtype=np.int64)


def encode_template(tokenizer: Tokenizer, template: str) -> Canvas:
    """Tokenize "Once {mask:8} a ..." as a document with gaps; raises ValueError if there are none.

    A space before a gap is the gap's own: in byte-level BPE a word's token begins with its space.
    """
    pieces, parts = [np.array([tokenizer.end_of_text_id])], split_template(template)
    for part, following in zip_longest(parts, parts[1:]):
        if isinstance(part, int):
            pieces.append(np.full(part, OPEN))
        else:
            text = part.removesuffix(" ") if isinstance(following, int) else part
            pieces.append(encode_prompt(tokenizer, text)[1:])
    return Canvas.with_holes(np.concatenate(pieces))


def encode_with_gaps(tokenizer: Tokenizer, prompt: str, positions: Collection[int]) -> Canvas:
    """Tokenize a prompt and open some of its positions; raises ValueError if one is not there."""
    return Canvas.with_holes(open_positions(encode_prompt(tokenizer, prompt), positions))


def check_tokens(tokens: Sequence[int] | np.ndarray, vocab_size: int, mask_id: int | None) -> None:
    """Check a prompt that is given as token ids; raises ValueError naming what is wrong with it."""
    tokens = np.asarray(tokens)
    if not len(tokens):
        raise ValueError("an empty prompt has nothing to begin from; give at least the end-of-text token")
    outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if len(outside):
        raise ValueError(
            f"tokens {outside[:5].tolist()} lie outside the vocabulary; use ids from 0 to {vocab_size - 1}"
        )
    if mask_id is not None and mask_id in tokens:
        raise ValueError(
            f"the prompt holds the mask token {mask_id}; to have a gap filled in, give a Canvas with OPEN there"
        )


def check_beginnings(canvases: Sequence[Canvas], mode: GenerationMode) -> None:
    """Check that autoregression has a token to begin from in every row; raises ValueError."""
    if mode == "diffusion":
        return
    for row, canvas in enumerate(canvases):
        if canvas.beginning == 0:
            raise ValueError(
                f"row {row} begins with an open position, and this model writes from left to right; "
                "put the end-of-text token in front"
            )


def check_lengths(canvases: Sequence[Canvas], total_length: int, shape: ModelShape) -> None:
    """Check that every row leaves something to find within total_length, and that the model reaches that far.

    Raises ValueError naming what does not fit.
    """
    if total_length > shape.context_length:
        raise ValueError(f"total_length = {total_length} exceeds the model's context_length = {shape.context_length}")
    for row, canvas in enumerate(canvases):
        if canvas.num_open == 0:
            raise ValueError(
                f"prompt {row} takes {len(canvas.tokens)} tokens and leaves no room in total_length = {total_length}; "
                f"raise total_length (at most {shape.context_length}) or shorten the prompt"
            )
        if len(canvas.tokens) > total_length:
            raise ValueError(
                f"template {row} takes {len(canvas.tokens)} tokens, more than total_length = {total_length}; "
                f"raise total_length (at most {shape.context_length}) or shorten the template"
            )


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the settings of a generation say of modes, caches, blocks and steps."""

    mode: GenerationMode
    cache: str
    policy: PolicyName
    steps: int | None
    block_length: int | None


def check_plan(
    canvases: Sequence[Canvas], total_length: int, shape: ModelShape, objective: str, plan: PlanRequest
) -> None:
    """Check everything that can be known before the weights are loaded; raises ValueError."""
    check_lengths(canvases, total_length, shape)
    if choose_mode(plan.mode, objective) != "diffusion":
        return
    choose_cache(plan.cache, objective)
    is_aligned = abilities_of(objective).is_block_causal
    block_length = plan.block_length or shape.block_length or total_length
    steps = plan.steps if Policy(plan.policy).uses_steps else None
    for canvas in canvases:
        plan_blocks(canvas.is_open.tolist(), block_length, steps, is_aligned)
