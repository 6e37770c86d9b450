"""Mirror the run to Weights & Biases. metrics.jsonl is the truth; whatever fails here never stops or slows training.

wandb runs in a process of its own (`wandb_helper.py`), fed through a pipe by a thread, from a queue with room for
10,000 messages. Training puts a record into the queue and goes on, whether the other end is fast, stuck or dead.
"""

import os
import queue
import secrets
import signal
import string
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from trainkit.callbacks import Callback
from trainkit.metrics import EvaluationRecord, StepRecord, json_line

_HELPER = Path(__file__).with_name("wandb_helper.py")
_MAX_WAITING = 10_000
_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class WandbSettings:
    """Say where the run appears."""

    project: str
    entity: str | None = None
    run_name: str | None = None
    mode: Literal["online", "offline", "disabled"] = "online"
    """The environment variable WANDB_MODE overrules it."""
    config: dict[str, Any] = field(default_factory=dict)
    """Shown beside the run: plain values, the code version among them."""
    uploads_checkpoints: bool = False
    """Keep every checkpoint as a version of an artifact."""
    init_timeout_s: float = 10.0
    """How long to try to reach the server before logging offline."""
    finish_timeout_s: float = 60.0
    """How long the end of training waits for what is not uploaded yet; it stays on disk in any case."""


class WandbLogger(Callback):
    """Log to a wandb run, online if it can be reached, else offline, else not at all.

    The run's id is chosen here and kept in checkpoints, so a resumed run continues the same curves.
    """

    def __init__(self, settings: WandbSettings, folder: Path, unit: str = "weight"):
        """Keep wandb's own files in `folder`; `unit` names what weights count, such as "tokens"."""
        self.settings = settings
        self.folder = folder
        self.unit = unit
        self.run_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
        self.is_resumed = False
        self._helper: _Helper | None = None
        self._exit_code = 0

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Start the process that opens the run; training does not wait for it."""
        if (os.environ.get("WANDB_MODE") or self.settings.mode) == "disabled":
            return
        given = self.settings
        self._helper = _Helper([sys.executable, "-P", str(_HELPER)])
        self._send(
            kind="open",
            project=given.project,
            entity=given.entity,
            run_name=given.run_name,
            mode=given.mode,
            config=given.config,
            folder=str(self.folder),
            run_id=self.run_id,
            is_resumed=self.is_resumed,
            init_timeout_s=given.init_timeout_s,
            finish_timeout_s=given.finish_timeout_s,
            training_pid=os.getpid(),
        )

    def on_log(self, record: StepRecord) -> None:
        """Send a step."""
        self._send(kind="log", values=record.to_json(self.unit))

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Send an evaluation."""
        self._send(kind="log", values=record.to_json(self.unit))

    def on_checkpoint_saved(self, step: int, path: Path) -> None:
        """Hand over a checkpoint for upload, if that is wanted."""
        if self.settings.uploads_checkpoints:
            self._send(kind="checkpoint", step=step, path=str(path.absolute()), aliases=["latest", f"step_{step}"])

    def on_error(self, step: int, error: BaseException) -> None:
        """Remember to mark the run as failed."""
        self._exit_code = 1

    def on_train_end(self, step: int) -> None:
        """Close the run, waiting for the network no longer than the settings say."""
        if self._helper is not None:
            self._send(kind="end", exit_code=self._exit_code)
            helper, self._helper = self._helper, None
            helper.close(self.settings.finish_timeout_s)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the run of an earlier session."""
        self.run_id, self.is_resumed = state["run_id"], True

    def _send(self, **message: Any) -> None:
        if self._helper is not None:
            self._helper.send(message)


class _Helper:
    """A process that is sent lines, and is never waited for but at the end."""

    def __init__(self, command: list[str]):
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        # A session of its own: Ctrl-C is for training, which then says farewell.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdin, "it was asked for"
        self._feeder = threading.Thread(target=self._feed, args=(self._process.stdin,), daemon=True)
        self._feeder.start()
        self._is_lost = False

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; once the queue is full or the process is gone, warn and send nothing more."""
        if self._is_lost:
            return
        if self._process.poll() is not None:
            self._lose("wandb's process has ended")
            return
        try:
            self._lines.put_nowait(json_line(message) + "\n")
        except queue.Full:
            self._lose(f"wandb takes nothing any more, and {_MAX_WAITING} records wait")

    def close(self, timeout_s: float) -> None:
        """Let the process send what it has, and end it after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with suppress(queue.Full):
            self._lines.put(None, timeout=0 if self._is_lost else timeout_s)
        try:
            # Its own time limit for uploads begins when all records are there: give it a little more.
            self._process.wait(max(0.0, deadline_s + 2.0 - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._lose(f"wandb was not done after {timeout_s:g} s and was stopped; the rest waits for `wandb sync`")
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it started may outlive it
        self._process.wait()

    def _feed(self, pipe: IO[str]) -> None:
        with suppress(OSError, ValueError):  # the reader is gone; `send` finds out and says so
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()
        with suppress(OSError):
            pipe.close()

    def _lose(self, what: str) -> None:
        self._is_lost = True
        warnings.warn(f"{what}; metrics.jsonl has everything, training goes on without wandb", stacklevel=4)
