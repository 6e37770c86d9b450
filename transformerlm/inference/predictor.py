"""Generate text from a checkpoint, whichever objective it was trained with.

predictor = Predictor.from_checkpoint("runs/latest")
print(predictor.generate(["Once upon a time"])[0].text)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch

from transformerlm.checkpoint import LoadedModel, WeightsName, load_model
from transformerlm.inference.autoregressive import AutoregressiveSettings, decode_autoregressive
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.decoded import Cost, Decoded
from transformerlm.inference.denoisers import CacheName
from transformerlm.inference.diffusion import DiffusionSettings, decode_diffusion
from transformerlm.inference.plan import Policy
from transformerlm.inference.progress import UpdateCallback, Watcher, cut_at_stop, settled_tokens
from transformerlm.inference.request import (
    GenerationMode,
    abilities_of,
    check_beginnings,
    check_lengths,
    check_tokens,
    choose_cache,
    choose_mode,
    encode_prompt,
    row_seed,
)
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.inference.trace import Trace
from transformerlm.inference.verified import decode_verified
from transformerlm.models import few_rows

Prompt = str | Sequence[int] | np.ndarray | Canvas
"""A text, its tokens (the start-of-document token included), or a row with open positions anywhere."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What to generate. Settings of the other mode are not looked at."""

    total_length: int = 256
    """Tokens of the finished text, the prompt's included (its start-of-document token too)."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    """Row r draws from a stream of its own, so it does not depend on the rows beside it."""
    mode: GenerationMode = "auto"
    """"auto" follows the checkpoint's objective."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    min_new_tokens: int = 0
    """The text does not end before so many tokens behind its prompt."""
    ignore_eos: bool = False
    """The text does not end at an end-of-text token at all but goes on with a next one, up to its full length."""
    is_compiled: bool = False
    """Autoregressive: compile the one-token step, which pays off after many texts."""
    draft_length: int = 8
    """Verified: tokens guessed at once."""
    steps: int | None = None
    """Diffusion: passes through the model, for policies that plan; None: one per token."""
    block_length: int = 32
    """Diffusion: tokens denoised together; blocks go left to right."""
    policy: Policy = field(default_factory=Policy)
    """Diffusion: which predictions to keep after each step."""
    cache: CacheName | Literal["auto"] = "auto"
    """Diffusion: what is not recomputed at every step."""
    cfg_scale: float = 0.0
    """Diffusion: strength of classifier-free guidance by the prompt; 0 is off."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished row."""

    prompt: str
    """What was given before the first open position."""
    completion: str
    """Everything behind it, without end-of-text token and stop string."""
    prompt_tokens: int
    generated_tokens: int
    """Tokens behind the prompt, up to and including an end-of-text token."""
    finish: Literal["end", "stop", "length"]
    """Why it ends: an end-of-text token, a stop string, or the length."""
    log_probs: tuple[float, ...]
    """log p of each of those tokens when it was chosen, before temperature and filters [nats]; 0 where it was given."""

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class GenerationCost:
    """What a call of `generate` took, over all its rows."""

    work: Cost
    seconds: float
    rows: int
    tokens: int
    """Generated, over all rows."""

    @property
    def evaluations(self) -> float:
        """Passes through the network that a row took part in, on average (NFE)."""
        return self.work.row_passes / max(1, self.rows)

    @property
    def token_forwards_per_token(self) -> float:
        """Positions that went through the network per generated token; autoregression with a cache needs about one."""
        return self.work.token_forwards / max(1, self.tokens)


def diffusion_settings(
    settings: GenerationSettings, objective: str, mask_id: int, end_id: int | None
) -> DiffusionSettings:
    """Return the settings of diffusion; raises ValueError if weights of this objective do not allow them."""
    return DiffusionSettings(
        mask_id=mask_id,
        end_id=end_id,
        block_length=settings.block_length,
        steps=settings.steps,
        policy=settings.policy,
        cache=choose_cache(settings.cache, objective),
        is_block_causal=abilities_of(objective).is_block_causal,
        cfg_scale=settings.cfg_scale,
    )


class Predictor:
    """A model and its tokenizer, ready to generate."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.model, self.tokenizer, self.objective = loaded.model, loaded.tokenizer, loaded.objective
        self.folder = loaded.folder
        self.last_cost = GenerationCost(Cost(), 0.0, 0, 0)

    @classmethod
    def from_checkpoint(
        cls, path: Path | str = "runs/latest", device: torch.device | str = "auto", weights: WeightsName = "auto"
    ) -> Self:
        """Load a checkpoint folder or a run's latest checkpoint; raises CheckpointError."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(path, device, weights))

    def generate(
        self,
        prompts: Sequence[Prompt],
        settings: GenerationSettings | None = None,
        on_update: UpdateCallback | None = None,
        *,
        seeds: Sequence[int] | None = None,
        trace: Trace | None = None,
    ) -> list[Generation]:
        """Continue every prompt, or fill in what a canvas leaves open.

        Prompts may differ in length; each row is what it would be alone with its seed.
        on_update: called with (row, text behind the prompt so far) as text appears; masks are shown as "░".
        seeds: one per row; by default they follow from settings.seed.
        trace: gets a record of every change; see new_trace.
        Raises ValueError if a prompt leaves no room, or a setting does not fit the model.
        """
        settings = settings or GenerationSettings()
        mode = choose_mode(settings.mode, self.objective)
        canvases = [self.lay_out(prompt, settings) for prompt in prompts]
        check_lengths(canvases, settings.total_length, self.model.shape)
        check_beginnings(canvases, mode)
        if not canvases:
            return []
        seeds = [row_seed(settings.seed, row) for row in range(len(prompts))] if seeds is None else seeds
        beginnings = [
            prompt if isinstance(prompt, str) else self.tokenizer.decode(canvas.tokens[1 : canvas.beginning])
            for prompt, canvas in zip(prompts, canvases, strict=True)
        ]
        watcher = Watcher(self.tokenizer, canvases, self.end_id(settings), shows_masks=mode == "diffusion")
        watcher.stop, watcher.on_update, watcher.trace = settings.stop, on_update, trace
        watcher.first_row = trace.begin(beginnings, canvases) if trace is not None else 0
        self.model.eval()
        start = time.perf_counter()
        decoded = self._decode(mode, canvases, settings, seeds, watcher if watcher.is_needed else None)
        seconds = time.perf_counter() - start
        generations = [
            self._finish(beginning, canvas, row, log_probs, settings)
            for beginning, canvas, row, log_probs in zip(
                beginnings, canvases, decoded.rows, decoded.log_probs, strict=True
            )
        ]
        tokens = sum(generation.generated_tokens for generation in generations)
        self.last_cost = GenerationCost(decoded.cost, seconds, len(canvases), tokens)
        return generations

    def new_trace(self, settings: GenerationSettings) -> Trace:
        """Return an empty trace for `generate` to fill."""
        mask_id = self.tokenizer.mask_id
        mode = choose_mode(settings.mode, self.objective)
        return Trace(mode, OPEN if mask_id is None else mask_id, ignore_eos=settings.ignore_eos)

    def lay_out(self, prompt: Prompt, settings: GenerationSettings) -> Canvas:
        """Return the row that a prompt asks to fill; raises ValueError if its tokens are not ours."""
        if isinstance(prompt, Canvas):
            check_tokens(prompt.tokens[~prompt.is_open], self.model.shape.vocab_size, self.tokenizer.mask_id)
            return prompt
        if isinstance(prompt, str):
            prompt = encode_prompt(self.tokenizer, prompt)
        check_tokens(prompt, self.model.shape.vocab_size, self.tokenizer.mask_id)
        return Canvas.continuing(prompt, settings.total_length, settings.min_new_tokens)

    def generates_by_diffusion(self, settings: GenerationSettings) -> bool:
        """Tell which way these settings generate."""
        return choose_mode(settings.mode, self.objective) == "diffusion"

    def end_id(self, settings: GenerationSettings) -> int | None:
        """Return the token that ends a text, None if none does."""
        return None if settings.ignore_eos else self.tokenizer.end_of_text_id

    def _decode(
        self,
        mode: GenerationMode,
        canvases: Sequence[Canvas],
        settings: GenerationSettings,
        seeds: Sequence[int],
        listener: Watcher | None,
    ) -> Decoded:
        generators = row_generators(seeds)
        self._expect_work(canvases, settings)
        if mode == "diffusion":
            assert self.tokenizer.mask_id is not None, "a diffusion checkpoint's tokenizer has a mask token"
            diffusion = diffusion_settings(settings, self.objective, self.tokenizer.mask_id, self.end_id(settings))
            return decode_diffusion(self.model, canvases, diffusion, settings.sampling, generators, listener)
        # Only a model that was trained with masks may come to write one.
        mask_id = None if self.objective == "autoregressive" else self.tokenizer.mask_id
        plain = AutoregressiveSettings(self.end_id(settings), mask_id, is_compiled=settings.is_compiled)
        if mode == "verified":
            return decode_verified(
                self.model, canvases, plain, settings.sampling, generators, listener, settings.draft_length
            )
        return decode_autoregressive(self.model, canvases, plain, settings.sampling, generators, listener)

    def _expect_work(self, canvases: Sequence[Canvas], settings: GenerationSettings) -> None:
        weight = self.model.embedding.weight
        if weight.is_cpu and weight.dtype == torch.float32:
            tokens = sum(int(canvas.is_open.sum()) for canvas in canvases)
            few_rows.expect(few_rows.WORTH_LOADING if settings.is_compiled else tokens * self.model.parameter_count())

    def _finish(
        self,
        beginning: str,
        canvas: Canvas,
        row: Sequence[int],
        log_probs: Sequence[float],
        settings: GenerationSettings,
    ) -> Generation:
        start = canvas.beginning
        is_given = (~canvas.is_open).tolist()
        end_id = self.end_id(settings)
        tokens = settled_tokens(row, is_given, start, end_id)
        after = start + len(tokens)
        has_end = after < len(row) and row[after] == end_id and not is_given[after]
        whole = self.tokenizer.decode(tokens)
        completion = cut_at_stop(whole, settings.stop)
        finish = "stop" if completion != whole else "end" if has_end else "length"
        count = len(tokens) + has_end
        return Generation(beginning, completion, start, count, finish, tuple(log_probs[start : start + count]))
