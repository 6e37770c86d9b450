"""[benchmark]: what transformerlm-bench-train measures, and for how long."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from config.section import Section

Modes = Annotated[tuple[Literal["eager", "compiled"], ...], Field(strict=False, min_length=1)]


class TrainBenchmarkSection(Section):
    """Speed of training: a model of a named size on random tokens, in rounds in which all contenders take turns."""

    size: Literal["tiny", "124M", "350M", "1B"] = "tiny"
    """Shape of the model, its context and its batch; all sizes are in the README."""
    modes: Modes = ("eager",)
    """`eager`, `compiled` (torch.compile, which needs a C++ compiler on a CPU), or both."""
    batch_size: PositiveInt | None = None
    """Rows per step. Default: that of the size."""
    context_length: PositiveInt | None = None
    """Tokens per row. Default: that of the size."""
    vocab_size: PositiveInt | None = None
    """Token ids of the model. Default: that of the size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes CUDA if there is a GPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix multiplications; `auto` is bfloat16 on a GPU that has it, else float32."""
    warmup_steps: NonNegativeInt = 3
    """Steps of each contender that are not counted, after the first one, which compiles [optimizer steps]."""
    rounds: PositiveInt = 5
    """Times that each contender takes its turn."""
    steps_per_round: PositiveInt = 10
    """Length of a turn [optimizer steps]."""
    seed: NonNegativeInt = 0
    """Seed of weights and tokens."""
