"""[sweep]: what transformerlm-sweep varies."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from config.section import NonEmptyText, Section
from config.sections.generation import Cache, Remasking

Values = Field(strict=False, min_length=1)


class SweepSection(Section):
    """The grid: every combination of these lists, each list standing for the key of [inference] of that name.

    A list that is left out holds that key's value alone. Combinations that differ only in what their policy does not
    look at are run once, and impossible ones are named and left out.
    """

    remasking: Annotated[tuple[Remasking, ...], Values] | None = None
    """Policies."""
    steps: Annotated[tuple[PositiveInt, ...], Values] | None = None
    """Denoising steps, of the policies that plan."""
    block_length: Annotated[tuple[PositiveInt, ...], Values] | None = None
    """Lengths of blocks [tokens]."""
    confidence_threshold: Annotated[tuple[NonNegativeFloat, ...], Values] | None = None
    """Of `threshold`."""
    entropy_bound: Annotated[tuple[NonNegativeFloat, ...], Values] | None = None
    """Of `entropy_bound` [nats]."""
    temperature: Annotated[tuple[NonNegativeFloat, ...], Values] | None = None
    """Temperatures."""
    cache: Annotated[tuple[Cache, ...], Values] | None = None
    """Caches."""
    num_texts: PositiveInt = 32
    """Texts for each combination, one at a time; text number i has the same seed everywhere."""
    warmup: NonNegativeInt = 1
    """Texts before the clock starts."""
    output: NonEmptyText = "sweep"
    """Where the results go: this name with .jsonl, a line per combination, and .html, the page with the plot."""

    def grid(self) -> dict[str, Sequence[Any] | None]:
        """Return the lists by the keys of [inference] that they vary."""
        varied = ("remasking", "steps", "block_length", "confidence_threshold", "entropy_bound", "temperature", "cache")
        return {key: value for key, value in self if key in varied}
