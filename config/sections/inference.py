"""[inference]: what transformerlm-infer generates."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from config.section import rule
from config.sections.generation import GenerationSettings
from config.sections.training import Device, Precision


class InferenceSection(GenerationSettings):
    """[inference]: what to generate, and on what hardware."""

    prompt: str = ""
    """Beginning to continue; empty starts from nothing."""
    template: str = ""
    """A text with gaps instead of a beginning: `Once {mask:8} a {mask:4}.` has gaps of 8 and 4 tokens. Diffusion fills
    them from both sides, autoregression from the left alone."""
    mask_positions: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()
    """Tokens of the prompt to find anew, counted from 0; the prompt is then the whole text."""
    batch_size: PositiveInt = 16
    """Texts generated together; the texts do not depend on it."""
    compile: bool = False
    """Autoregressive: compile the one-token step (a CUDA graph on a GPU); pays off over many texts."""
    device: Device = "auto"
    """Where to run; `auto` takes CUDA if there is a GPU."""
    precision: Precision = "auto"
    """Type of the matrix multiplications; `auto` is bfloat16 on a GPU that has it, else float32."""

    @rule("mask_positions", "template")
    def gaps_are_marked_one_way(mask_positions: tuple[int, ...], template: str) -> str | None:
        """Refuse two ways of marking gaps at once."""
        return "a template marks its gaps itself; remove one of the two" if mask_positions and template else None
