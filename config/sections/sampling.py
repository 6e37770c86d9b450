"""[sampling]: texts generated during training."""

from pydantic import NonNegativeInt

from config.section import TextList
from config.sections.generation import GenerationSettings


class SamplingSection(GenerationSettings):
    """[sampling]: texts generated now and then during training, to watch it learn."""

    every: NonNegativeInt = 0
    """Generate after every so many steps, and at the end; 0: at the end only [optimizer steps]."""
    prompts: TextList = ("",)
    """Beginnings to continue; the empty one starts from nothing. [] generates nothing at all."""
