"""Generate text from a checkpoint, whichever objective it was trained with.

predictor = Predictor.from_checkpoint("runs/latest")
print(predictor.generate(["Once upon a time"])[0].text)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from transformerlm.checkpoint import LoadedModel, load_model
from transformerlm.inference.autoregressive import generate_autoregressive
from transformerlm.inference.diffusion import DiffusionSettings, generate_diffusion
from transformerlm.inference.policies import Remasking
from transformerlm.inference.request import (
    MODE_OF_OBJECTIVE,
    GenerationMode,
    check_lengths,
    check_mode,
    encode_prompt,
)
from transformerlm.inference.sampling import SamplingSettings, row_generators


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
    steps: int = 128
    """Diffusion: passes through the model."""
    block_length: int = 32
    """Diffusion: tokens denoised together; blocks go left to right."""
    remasking: Remasking = "low_confidence"
    """Diffusion: which predictions to withdraw after each step."""
    cfg_scale: float = 0.0
    """Diffusion: strength of classifier-free guidance by the prompt; 0 is off."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished row."""

    prompt: str
    completion: str
    """The text behind the prompt, without end-of-text token and stop string."""
    prompt_tokens: int
    generated_tokens: int
    """Tokens behind the prompt, up to and including an end-of-text token."""

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class GenerationCost:
    """What a call of `generate` took, over all its rows."""

    evaluations: int
    """Passes through the model."""
    seconds: float


class Predictor:
    """A model and its tokenizer, ready to generate."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.model, self.tokenizer, self.objective = loaded.model, loaded.tokenizer, loaded.objective
        self.folder = loaded.folder
        self.last_cost = GenerationCost(0, 0.0)

    @classmethod
    def from_checkpoint(cls, path: Path | str = "runs/latest", device: torch.device | str = "auto") -> Self:
        """Load a checkpoint folder or a run's latest checkpoint; raises CheckpointError."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load_model(path, device))

    def generate(
        self,
        prompts: Sequence[str],
        settings: GenerationSettings | None = None,
        on_update: Callable[[int, str], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt.

        on_update: called with (row, completion so far) as text appears; masks are shown as "░".
        Raises ValueError if a prompt leaves no room, or a setting does not fit the model.
        """
        settings = settings or GenerationSettings()
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        check_lengths(encoded, settings.total_length, self.model.shape)
        check_mode(settings.mode, self.objective)
        if not encoded:
            return []
        run = self._run_diffusion if self.generates_by_diffusion(settings) else self._run_autoregressive
        self.model.eval()
        start = time.perf_counter()
        rows, evaluations = run(encoded, settings, on_update)
        self.last_cost = GenerationCost(evaluations, time.perf_counter() - start)
        return [
            self._finish(prompt, len(tokens), row, settings.stop)
            for prompt, tokens, row in zip(prompts, encoded, rows, strict=True)
        ]

    def generates_by_diffusion(self, settings: GenerationSettings) -> bool:
        """Tell which way these settings generate."""
        mode = MODE_OF_OBJECTIVE[self.objective] if settings.mode == "auto" else settings.mode
        return mode == "diffusion"

    def _run_autoregressive(
        self,
        encoded: Sequence[Sequence[int]],
        settings: GenerationSettings,
        on_update: Callable[[int, str], None] | None,
    ) -> tuple[list[list[int]], int]:
        completions: list[list[int]] = [[] for _ in encoded]

        def on_token(row: int, token: int) -> bool:
            if token == self.tokenizer.end_of_text_id:
                return True
            completions[row].append(token)
            if on_update is None and not settings.stop:
                return False
            text = self.tokenizer.decode(completions[row])
            if on_update is not None:
                on_update(row, _cut_at_stop(text, settings.stop))
            return any(stop in text for stop in settings.stop)

        generators = row_generators(settings.seed, len(encoded))
        return generate_autoregressive(
            self.model, encoded, settings.total_length, settings.sampling, generators, on_token
        )

    def _run_diffusion(
        self,
        encoded: Sequence[Sequence[int]],
        settings: GenerationSettings,
        on_update: Callable[[int, str], None] | None,
    ) -> tuple[list[list[int]], int]:
        assert self.tokenizer.mask_id is not None, "a diffusion checkpoint's tokenizer has a mask token"

        def on_step(tokens: Tensor) -> None:
            if on_update is None:
                return
            for row, prompt in enumerate(encoded):
                on_update(row, self._show_masks(tokens[row, len(prompt) :].tolist()))

        diffusion = DiffusionSettings(
            mask_id=self.tokenizer.mask_id,
            end_id=self.tokenizer.end_of_text_id,
            steps=settings.steps,
            block_length=settings.block_length,
            remasking=settings.remasking,
            cfg_scale=settings.cfg_scale,
        )
        generators = row_generators(settings.seed, len(encoded))
        return generate_diffusion(
            self.model, encoded, settings.total_length, diffusion, settings.sampling, generators, on_step
        )

    def _show_masks(self, tokens: list[int]) -> str:
        """Render a half-denoised completion: runs of known tokens decoded, "░" for each mask."""
        text, known = "", []
        for token in [*tokens, self.tokenizer.mask_id]:
            if token == self.tokenizer.mask_id:
                text += self.tokenizer.decode(known) + "░"
                known = []
            else:
                known.append(token)
        return text[:-1]

    def _finish(self, prompt: str, prompt_tokens: int, row: list[int], stop: tuple[str, ...]) -> Generation:
        generated = row[prompt_tokens:]
        text_tokens = generated
        if self.tokenizer.end_of_text_id in generated:
            end = generated.index(self.tokenizer.end_of_text_id)
            generated, text_tokens = generated[: end + 1], generated[:end]
        completion = _cut_at_stop(self.tokenizer.decode(text_tokens), stop)
        return Generation(prompt, completion, prompt_tokens, len(generated))


def _cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    """Cut a text before the first stop string in it."""
    ends = [text.index(string) for string in stop if string in text]
    return text[: min(ends)] if ends else text
