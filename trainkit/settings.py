"""What a trainer is given, and what it hands back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, Signals
from typing import Literal

from torch import nn

from trainkit.distributed.strategy import StrategyName
from trainkit.metrics import EvaluationRecord
from trainkit.protocols import BatchSource, Objective
from trainkit.signals import RESUME_EXIT_CODE
from trainkit.training.optim import AdamWSettings, OptimizerSettings, RoleOf
from trainkit.training.precision import PrecisionName
from trainkit.training.schedule import LearningRateOfStep


@dataclass(frozen=True, slots=True)
class Task:
    """Say what is trained: a model, the objective that judges it, and this rank's training data."""

    model: nn.Module
    objective: Objective
    source: BatchSource
    blocks: Sequence[nn.Module] = ()
    """The model's repeated parts, such as its layers: what fsdp gathers and recompute_blocks computes again at once."""
    role_of: RoleOf | None = None
    """Tells the optimizer what each parameter is for; None reads it from types and shapes."""


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """Set the loop. All counts are of optimizer steps."""

    schedule: LearningRateOfStep
    """Learning rate by step; its max_steps is where training ends."""
    optimizer: OptimizerSettings = field(default_factory=AdamWSettings)
    grad_accum_steps: int = 1
    """Micro-batches per step and rank."""
    grad_clip_norm: float | None = 1.0
    """Largest global norm of the gradient of the mean loss; None never clips."""
    precision: PrecisionName = "auto"
    compile: bool = False
    strategy: StrategyName = "ddp"
    """How several processes share the model: ddp gives each all of it, fsdp a slice."""
    recompute_blocks: bool = False
    """Compute the inside of Task.blocks again in the backward pass instead of keeping it: less memory, more time."""
    average_decay: float = 0.0
    """Keep a moving average of the weights, and evaluate that; the share of it that stays each step. 0: none."""
    seed: int = 0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do about a loss or gradient that is NaN or infinite: it never reaches the parameters."""
    spike_deviations: float = 0.0
    """Skip steps whose loss or gradient norm is so many standard deviations above the last 100 good ones; 0: never."""
    flops_per_weight: float | None = None
    """Operations of forward and backward per unit of weight, for the MFU; None leaves it unknown."""
    log_every: int = 10
    save_every: int = 0
    """Steps between checkpoints; the last step is always saved. 0 means only then, and on a signal."""
    save_in_background: bool = True
    """Train on while a checkpoint is written; costs host memory for a copy of weights and optimizer state."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Say how training ended."""

    step: int
    checkpoint: Path | None
    """The last checkpoint saved, on rank 0."""
    evaluation: EvaluationRecord | None
    """The last evaluation of this session; it knows the best one of the run."""
    stop_signal: Signals | None
    """The signal that ended training early, or None if it ran to its last step."""
    is_resumable: bool = True
    """A checkpoint of this step was saved, by rank 0."""

    @property
    def exit_code(self) -> int:
        """Return the process's exit code: 0; 75 "saved, resume me"; 128 + signal for Ctrl-C or if nothing was saved."""
        if self.stop_signal is None:
            return 0
        is_unattended = self.stop_signal is not SIGINT
        return RESUME_EXIT_CODE if is_unattended and self.is_resumable else 128 + self.stop_signal
