"""What can be asked of a model, checked before any weights are loaded: needs its description only, not torch."""

from collections.abc import Sequence
from typing import Literal

from transformerlm.models.shape import ModelShape
from transformerlm.tokenizer import Tokenizer

GenerationMode = Literal["auto", "autoregressive", "diffusion"]
MODE_OF_OBJECTIVE: dict[str, GenerationMode] = {"autoregressive": "autoregressive", "masked_diffusion": "diffusion"}


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Tokenize a prompt as the beginning of a document, which follows an end-of-text token in training."""
    return [tokenizer.end_of_text_id, *tokenizer.encode(prompt, allowed_special="none")]


def check_lengths(prompts: Sequence[Sequence[int]], total_length: int, shape: ModelShape) -> None:
    """Check that every tokenized prompt leaves room in total_length, and that the model reaches that far.

    Raises ValueError naming what does not fit.
    """
    if total_length > shape.context_length:
        raise ValueError(f"total_length = {total_length} exceeds the model's context_length = {shape.context_length}")
    for row, tokens in enumerate(prompts):
        if len(tokens) >= total_length:
            raise ValueError(
                f"prompt {row} takes {len(tokens)} tokens and leaves no room in total_length = {total_length}; "
                f"raise total_length (at most {shape.context_length}) or shorten the prompt"
            )


def check_mode(mode: GenerationMode, objective: str) -> None:
    """Check that a model trained for the objective can generate this way; raises ValueError."""
    if mode not in ("auto", MODE_OF_OBJECTIVE[objective]):
        raise ValueError(
            f"generation_mode = {mode!r} needs weights trained for it; this checkpoint's objective is {objective!r}: "
            "use generation_mode = 'auto'"
        )
