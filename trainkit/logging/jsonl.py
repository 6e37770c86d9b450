"""Write metrics.jsonl, the run's own account: one JSON object per logged step and per evaluation."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from trainkit.callbacks import Callback
from trainkit.errors import RunWriteError
from trainkit.metrics import EvaluationRecord, StepRecord, json_line


class JsonlLogger(Callback):
    """Append records to a file; a resumed run first drops what was written after the step it resumes from.

    Raises RunWriteError if the disk is full or refuses: the run's own account must have no holes.
    """

    def __init__(self, path: Path, unit: str = "weight"):
        """Write to `path`; `unit` names what weights count, such as "tokens"."""
        self.path = path
        self.unit = unit
        self._file: TextIO | None = None

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Open the file behind the last record of `step`."""
        with self._reporting_failure():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                drop_records_after(self.path, step)
            self._file = self.path.open("a", encoding="utf-8")

    def on_log(self, record: StepRecord) -> None:
        """Append a step."""
        self._write(json_line(record.to_json(self.unit)))

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Append an evaluation."""
        self._write(json_line(record.to_json(self.unit)))

    def on_train_end(self, step: int) -> None:
        """Close the file."""
        if self._file:
            with suppress(OSError):  # every line was flushed, or its failure reported
                self._file.close()
            self._file = None

    def _write(self, line: str) -> None:
        if self._file:
            with self._reporting_failure():
                self._file.write(line + "\n")
                self._file.flush()

    @contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise RunWriteError(f"cannot write {self.path}: {reason}; checkpoints already saved are intact") from error


def drop_records_after(path: Path, step: int) -> None:
    """Remove the records of later steps, and a last line that a crash cut short, replacing the file atomically."""
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_record_until(line, step)]
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def _is_record_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
