"""Write TensorBoard's event files. metrics.jsonl is the truth; a failure here is reported once and stops nothing."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.callbacks import Callback
from trainkit.metrics import EvaluationRecord, StepRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardLogger(Callback):
    """Log every number of every record, by step; a resumed run hides what it repeats.

    Raises ValueError when constructed without the tensorboard package.
    """

    def __init__(self, folder: Path, unit: str = "weight"):
        """Write into `folder`; `unit` names what weights count, such as "tokens"."""
        try:
            import tensorboard  # noqa: F401 - torch's writer needs it, and says so less clearly
        except ImportError:
            raise ValueError(
                "logging to tensorboard needs the tensorboard package: install it (pip install tensorboard), or leave "
                "tensorboard out of the logging backends"
            ) from None
        self.folder = folder
        self.unit = unit
        self._writer: SummaryWriter | None = None

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Open an event file; of an earlier session's, TensorBoard then shows nothing behind `step`."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None, flush_secs=10)
        except OSError as error:
            self._give_up(error)

    def on_log(self, record: StepRecord) -> None:
        """Write a step."""
        self._write(record.to_json(self.unit))

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Write an evaluation."""
        self._write(record.to_json(self.unit))

    def on_train_end(self, step: int) -> None:
        """Close the event file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, values: dict[str, Any]) -> None:
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, values["step"])
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        warnings.warn(f"tensorboard stopped working, training goes on without it ({error})", stacklevel=3)
