"""[benchmark]: how transformerlm-bench-infer measures."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from config.section import Section


class BenchmarkSection(Section):
    """Latency and throughput of generation."""

    prompt_length: PositiveInt = 32
    """Length of the random prompt [tokens]; the rest, up to inference.total_length, is generated."""
    warmup: NonNegativeInt = 1
    """Generations before the clock starts."""
    repeats: PositiveInt = 5
    """Generations that are timed."""
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1,)
    """Prompts generated together; each size is measured."""
