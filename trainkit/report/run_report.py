"""report.html in the run folder: the run on one page, from the files that the run keeps anyway."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from signal import Signals
from typing import Any

from trainkit.callbacks import Callback
from trainkit.logging.harmless import Harmless
from trainkit.metrics import EvaluationRecord
from trainkit.report.curves import read_curves, read_records
from trainkit.report.page import write_page

REPORT_NAME = "report.html"
SAMPLES_NAME = "samples.jsonl"
_MAX_SAMPLES = 400
_MAX_TIME_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What the page says that no file of the run tells."""

    title: str
    about: str = ""
    """One line below the title."""
    unit: str = "weight"
    config: str = ""
    """The configuration as text."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FiguresTable:
    """A table of closing figures: each row as long as `columns`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class RunReport(Callback):
    """Write the page after each evaluation and at the end; a failure is a warning and never stops training.

    It is made from metrics.jsonl and samples.jsonl (objects with step, prompt and text), so a resumed run shows all of
    itself. Refreshing it takes at most a hundredth of the time: evaluations that follow too fast are left out.
    """

    def __init__(self, folder: Path, facts: ReportFacts):
        """Write into the run's `folder`."""
        self.folder = folder
        self.facts = facts
        self.table: FiguresTable | None = None
        """Closing figures, to be set before a last `write`."""
        self._max_steps = 0
        self._state, self._status = "training", "training"
        self._written_s, self._took_s = -float("inf"), 0.0

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Write the first page."""
        self._max_steps = max_steps
        self._state, self._status = "training", "training"
        self.write()

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Refresh the page, unless that was done a moment ago."""
        if time.monotonic() - self._written_s > self._took_s / _MAX_TIME_SHARE:
            self.write()

    def on_stop(self, step: int, stop_signal: Signals, path: Path | None) -> None:
        """Remember why training ended."""
        self._state, self._status = "stopped", f"stopped by {stop_signal.name} after step {step}"

    def on_error(self, step: int, error: BaseException) -> None:
        """Remember what ended training."""
        self._state, self._status = "failed", f"failed after step {step}: {type(error).__name__}"

    def on_train_end(self, step: int) -> None:
        """Write the last page."""
        if self._state == "training":
            self._state, self._status = "finished", f"finished after step {step}"
        self.write()

    def write(self) -> None:
        """Write the page now; warns if that fails."""
        began_s = time.monotonic()
        with Harmless(f"{self.folder / REPORT_NAME} was not written, training goes on"):
            write_page(self.folder / REPORT_NAME, "run_report.html", self._collect())
        self._written_s = time.monotonic()
        self._took_s = self._written_s - began_s

    def _collect(self) -> dict[str, Any]:
        curves = read_curves(self.folder / "metrics.jsonl")
        shown = len(curves.steps.get("step", []))
        table = self.table
        return {
            "title": self.facts.title,
            "about": self.facts.about,
            "unit": self.facts.unit,
            "config": self.facts.config,
            "environment": self.facts.environment,
            "state": self._state,
            "status": self._status,
            "max_steps": self._max_steps,
            "steps": curves.steps,
            "evaluations": curves.evaluations,
            "thinned": [shown, curves.num_steps] if shown < curves.num_steps else None,
            "samples": select_samples(read_records(self.folder / SAMPLES_NAME)),
            "table": {"title": table.title, "columns": table.columns, "rows": table.rows} if table else None,
            "written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}",
        }


def select_samples(samples: list[dict[str, Any]], max_samples: int = _MAX_SAMPLES) -> list[dict[str, Any]]:
    """Leave out whole steps, evenly, until at most about `max_samples` remain; the first and last step stay."""
    whole = [each for each in samples if isinstance(each.get("step"), int) and isinstance(each.get("text"), str)]
    steps = sorted({each["step"] for each in whole})
    if len(whole) > max_samples and len(steps) > 2:
        wanted = max(2, max_samples * len(steps) // len(whole))
        steps = [steps[round(index * (len(steps) - 1) / (wanted - 1))] for index in range(wanted)]
    kept = set(steps)
    chosen = [each for each in whole if each["step"] in kept]
    return [{"step": each["step"], "prompt": str(each.get("prompt", "")), "text": each["text"]} for each in chosen]
