"""[training]: how long, on what and how exactly to train."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from config.section import Section, Seed, rule

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class TrainingSection(Section):
    """The loop: its length, its batch, its validation, and the hardware it runs on."""

    max_steps: PositiveInt
    """Length of the training [optimizer steps]."""
    init_from: str = ""
    """Begin from the weights of this run or checkpoint folder, of the same model shape and tokenizer, whatever its
    objective; empty: begin from random weights. (To continue a run, see checkpointing.resume_from.)"""
    batch_size: PositiveInt
    """Sequences per rank and micro-step."""
    grad_accum_steps: PositiveInt = 1
    """Micro-steps per optimizer step; the global batch is batch_size x grad_accum_steps x ranks."""
    eval_every: PositiveInt = 100
    """Validate after every so many steps, and at the end [optimizer steps]."""
    eval_batches: PositiveInt = 20
    """Batches per validation and rank."""
    skip_validation: bool = False
    """Never validate; data.val_split is then not read."""
    seed: Seed = 0
    """Seed of initial weights, masks and samples; the order of the data has data.shuffle_seed."""
    device: Device = "auto"
    """Where to train; `auto` takes CUDA if there is a GPU."""
    precision: Precision = "auto"
    """Type of the matrix multiplications; `auto` is bfloat16 where the hardware has it, else float32."""
    compile: bool = False
    """Compile the model with torch.compile: slow to start, faster afterwards on a GPU."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When the loss or gradient is not a number: `stop`, naming the step, its data and the last good checkpoint, or
    `skip` the update, count it, and stop only after 20 in a row. The parameters are safe either way."""
    spike_deviations: NonNegativeFloat = 0.0
    """Skip updates whose loss or gradient norm lies so many standard deviations above the mean of the last 100 good
    steps, such as 6.0; 0 never does."""

    profile_steps: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()
    """First and last step of a trace in the run folder, for ui.perfetto.dev, such as [20, 22]; later steps than the
    first few show the run as it goes on. Empty: none [optimizer steps]."""

    @rule("profile_steps", "max_steps")
    def profiled_steps_are_a_range(profile_steps: tuple[int, ...], max_steps: int) -> str | None:
        """Require nothing, or two steps in order that the run reaches."""
        if not profile_steps or (len(profile_steps) == 2 and profile_steps[0] <= profile_steps[1] <= max_steps):
            return None
        return f"{list(profile_steps)} is not a range of steps up to max_steps = {max_steps}; use two, such as [20, 22]"

    @rule("precision", "device")
    def half_precision_needs_a_gpu(precision: str, device: str) -> str | None:
        """Refuse float16 on a CPU, where torch has no gradient scaling for it."""
        if precision == "float16" and device == "cpu":
            return 'float16 trains on a GPU only; use "auto", "float32" or "bfloat16" with device = "cpu"'
        return None
