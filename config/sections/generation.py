"""How text is generated: the keys that [inference] and [sampling] share."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from config.section import Section, Seed, TextList, rule


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
    seed: Seed = 0
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

    @rule("stop")
    def stops_have_text(stop: tuple[str, ...]) -> str | None:
        """Refuse the empty text, which would stop everything at once."""
        return None if all(stop) else "an empty text would stop at once; remove it"
