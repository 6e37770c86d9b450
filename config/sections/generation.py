"""How text is generated: the keys that [inference] and [sampling] share."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from config.section import Section, TextList, rule


class GenerationSettings(Section):
    """What a sampler needs, whoever calls it."""

    num_samples: PositiveInt = 1
    """Texts to generate for each prompt."""
    total_length: PositiveInt | None = None
    """Final length, prompt included [tokens]. Default: the model's context length."""
    temperature: NonNegativeFloat = 1.0
    """Divides the logits: below 1 safer, above 1 wilder; 0 always takes the likeliest token."""
    top_k: NonNegativeInt = 0
    """Draw among this many likeliest tokens; 0 draws among all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw among the likeliest tokens that together reach this probability; 1 draws among all."""
    seed: NonNegativeInt = 0
    """Seed of the draws."""
    generation_mode: Literal["auto", "autoregressive", "diffusion"] = "auto"
    """`auto` generates the way the model was trained."""
    steps: PositiveInt | None = None
    """Diffusion: denoising steps, over all blocks together. Default: one per generated token."""
    block_length: PositiveInt | None = None
    """Diffusion: blocks of this length are denoised left to right [tokens]. Default: one block."""
    remasking: Literal["low_confidence", "random"] = "low_confidence"
    """Diffusion: which tokens stay masked for a later step."""
    cfg_scale: NonNegativeFloat = 0.0
    """Diffusion: strength of classifier-free guidance by the prompt; 0 switches it off."""
    stop: TextList = ()
    """Texts at which generation ends; the end-of-text token always ends it."""

    @rule("steps", "total_length")
    def steps_have_tokens(steps: int | None, total_length: int | None) -> str | None:
        """Refuse steps that would find nothing to denoise."""
        return _exceeds(steps, total_length, "each step commits at least one token")

    @rule("block_length", "total_length")
    def blocks_fit(block_length: int | None, total_length: int | None) -> str | None:
        """Refuse blocks longer than the text."""
        return _exceeds(block_length, total_length, "a block is part of the text")

    @rule("stop")
    def stops_have_text(stop: tuple[str, ...]) -> str | None:
        """Refuse the empty text, which would stop everything at once."""
        return None if all(stop) else "an empty text would stop at once; remove it"


def _exceeds(value: int | None, limit: int | None, reason: str) -> str | None:
    if value is None or limit is None or value <= limit:
        return None
    return f"{value} is above total_length = {limit}, and {reason}; lower it"
