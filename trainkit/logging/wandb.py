"""Mirror the run to Weights & Biases. metrics.jsonl is the truth; whatever fails here never stops training."""

import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from trainkit.callbacks import Callback
from trainkit.metrics import EvaluationRecord, StepRecord

_INIT_TIMEOUT_S = 5
_FINISH_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class WandbSettings:
    """Say where the run appears."""

    project: str
    entity: str | None = None
    run_name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """Shown beside the run: plain values."""


class WandbLogger(Callback):
    """Log to a wandb run, online if it can be reached within seconds, else offline, else not at all.

    The run's id is kept in checkpoints, so a resumed run continues the same curves.
    """

    def __init__(self, settings: WandbSettings, folder: Path, unit: str = "weight"):
        """Keep wandb's own files in `folder`; `unit` names what weights count, such as "tokens"."""
        self.settings = settings
        self.folder = folder
        self.unit = unit
        self.run: Any = None
        self.run_id: str | None = None

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Open the run."""
        with _Harmless("wandb cannot be reached, logging offline instead"):
            self._open(mode=None)
        if self.run is None:
            with _Harmless("wandb cannot log offline either, going on without it"):
                self._open(mode="offline")

    def _open(self, mode: str | None) -> None:
        import wandb  # takes seconds, and only this logger needs it

        self.run = wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            name=self.settings.run_name,
            config=self.settings.config,
            dir=str(self.folder),
            id=self.run_id,
            resume="allow" if self.run_id else None,
            mode=mode,
            settings=wandb.Settings(init_timeout=_INIT_TIMEOUT_S, login_timeout=_INIT_TIMEOUT_S),
        )
        self.run_id = self.run.id
        self.run.define_metric("*", step_metric="step")

    def on_log(self, record: StepRecord) -> None:
        """Send a step."""
        self._log(record.to_json(self.unit))

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Send an evaluation."""
        self._log(record.to_json(self.unit))

    def on_train_end(self, step: int) -> None:
        """Close the run, waiting for a dead network no longer than half a minute."""
        if self.run is None:
            return
        run, self.run = self.run, None
        closing = threading.Thread(target=_close, args=(run,), daemon=True)
        closing.start()
        closing.join(_FINISH_TIMEOUT_S)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the run of an earlier session."""
        self.run_id = state["run_id"]

    def _log(self, values: dict[str, Any]) -> None:
        if self.run is None:
            return
        harmless = _Harmless("wandb stopped working, going on without it")
        with harmless:
            self.run.log(values)
        if harmless.has_failed:
            self.run = None


def _close(run: Any) -> None:
    with _Harmless("wandb did not close its run"):
        run.finish()


class _Harmless:
    """Turn any failure inside the block into a warning.

    Deliberately broad: wandb raises its own errors, those of its HTTP library and of its helper process, and no list
    of them would be complete.
    """

    def __init__(self, message: str):
        self.message = message
        self.has_failed = False

    def __enter__(self) -> "_Harmless":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        self.has_failed = True
        warnings.warn(f"{self.message} ({type(error).__name__}: {error})", stacklevel=2)
        return True
