"""The complete vocabulary of hooks into a training run; override what you need, the rest does nothing.

Hooks run on rank 0, where files are written and the user is told; the other ranks wait at their next exchange of
gradients. A callback that itself talks to the other ranks sets `runs_on_every_rank`.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainkit.metrics import EvaluationRecord, StepRecord


class Callback:
    """Be called at every turn of a run. The order of the methods is the order of the calls."""

    runs_on_every_rank: bool = False

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Follow the last preparation; `step` optimizer steps were done by earlier sessions of the run."""

    def on_step_start(self, step: int) -> None:
        """Precede the fetching of the step's batches; steps count from 1."""

    def on_gradients_ready(self, step: int, grad_norm: Tensor) -> None:
        """Follow synchronisation, unscaling and clipping, and precede the optimizer's update.

        grad_norm: [] before clipping, on the device; reading it makes the host wait.
        """

    def report_metrics(self, step: int) -> Mapping[str, float]:
        """Return further values for the record of a step that is about to be logged."""
        return {}

    def on_step_end(self, record: StepRecord) -> None:
        """Follow the optimizer's update, in every step; on a GPU one step late, since nothing waits for its numbers."""

    def on_log(self, record: StepRecord) -> None:
        """Receive the steps that are to be reported: every `log_every`-th, and the last."""

    def on_evaluation_start(self, step: int) -> None:
        """Precede an evaluation."""

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Receive what an evaluation found."""

    def write_extras(self, folder: Path) -> None:
        """Add files to the checkpoint being written in `folder`; they are hashed and published with it.

        This runs in the thread that saves, while training goes on: write only what does not change, and return from
        `state_dict` what does.
        """

    def on_checkpoint_saved(self, step: int, path: Path) -> None:
        """Follow the publication of a checkpoint of `step`; training may be some steps ahead of it."""

    def on_notice(self, step: int, message: str) -> None:
        """Hear of something in the background that the user should know: an upload that failed, and will be retried."""

    def on_checkpoint_loaded(self, step: int, path: Path) -> None:
        """Follow the restoring of a checkpoint, and precede on_train_start."""

    def on_stop(self, step: int, stop_signal: signal.Signals, path: Path | None) -> None:
        """Follow the last step after a signal; `path` is the checkpoint to resume from."""

    def on_error(self, step: int, error: BaseException) -> None:
        """See the error that ends the run in the step after `step`, before it is raised on."""

    def on_train_end(self, step: int) -> None:
        """Close what on_train_start opened; called last, however the run ends."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback remembers, as JSON values; checkpoints keep it under the class's name."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a remembered state."""
