"""Tell the user how training goes: tidy lines and a progress bar on a terminal, JSON lines when piped."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from trainkit.callbacks import Callback
from trainkit.logging.streams import silence
from trainkit.metrics import EvaluationRecord, StepRecord, json_line


class ConsoleLogger(Callback):
    """Report on standard output; the progress bar and remarks about checkpoints go to standard error."""

    def __init__(self, unit: str = "weight", resume_command: str | None = None):
        """`unit` names what weights count, such as "tokens"; `resume_command` is what to type after an interruption."""
        self.unit = unit
        self.resume_command = resume_command
        self.is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self.is_colored = self.is_terminal and not os.environ.get("NO_COLOR")
        self._bar: tqdm | None = None

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Show the bar; tqdm hides it where standard error is no terminal."""
        if sys.stderr is not None:
            options = {"unit": "step", "file": sys.stderr, "disable": None, "dynamic_ncols": True}
            self._bar = tqdm(total=max_steps, initial=step, **options)

    def on_step_end(self, record: StepRecord) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_log(self, record: StepRecord) -> None:
        """Print one step."""
        self._print(self.format_step(record) if self.is_terminal else json_line(record.to_json(self.unit)))

    def on_evaluation_end(self, record: EvaluationRecord) -> None:
        """Print one evaluation."""
        self._print(self.format_evaluation(record) if self.is_terminal else json_line(record.to_json(self.unit)))

    def on_checkpoint_loaded(self, step: int, path: Path) -> None:
        """Say where training continues."""
        self._remark(f"resuming after step {step} from {path}")

    def on_checkpoint_saved(self, step: int, path: Path) -> None:
        """Say what was saved."""
        self._remark(f"saved {path}")

    def on_notice(self, step: int, message: str) -> None:
        """Pass it on."""
        self._remark(message)

    def on_stop(self, step: int, stop_signal: signal.Signals, path: Path | None) -> None:
        """Say how to go on after an interruption."""
        where = f"saved {path}" if path else "nothing was saved"
        remedy = f"; to resume: {self.resume_command}" if path and self.resume_command else ""
        self._remark(f"stopped by {stop_signal.name} after step {step}: {where}{remedy}")

    def on_train_end(self, step: int) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def format_step(self, record: StepRecord) -> str:
        """Return the line a person reads about a step, short enough for 80 columns."""
        rate = shorten(record.weight_per_second)
        extra = self._format_metrics(record.metrics)
        return (
            f"{self._dim('step')} {record.step:>6}  {self._dim('loss')} {record.loss:.4f}  "
            f"{self._dim('lr')} {record.learning_rate:.1e}  {self._dim('grad')} {record.grad_norm:.2f}  "
            f"{rate:>5} {self._dim(f'{self.unit}/s')}{extra}"
        )

    def format_evaluation(self, record: EvaluationRecord) -> str:
        """Return the line a person reads about an evaluation."""
        extra = self._format_metrics(record.metrics)
        over = self._dim(f"over {shorten(record.weight)} {self.unit}")
        return f"{self._dim('step')} {record.step:>6}  {self._dim('validation loss')} {record.loss:.4f}  {over}{extra}"

    def _format_metrics(self, metrics: Mapping[str, float]) -> str:
        """Show the metrics that stand alone; of families such as norm/<layer> there are too many for a line."""
        plain = {name: value for name, value in metrics.items() if "/" not in name}
        return "".join(f"  {self._dim(name)} {value:.4g}" for name, value in plain.items())

    def _dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self.is_colored else text

    def _print(self, line: str) -> None:
        write_line(line, sys.stdout)

    def _remark(self, line: str) -> None:
        write_line(line, sys.stderr)


def write_line(text: str, stream: TextIO | None) -> None:
    """Write a line at once, above a progress bar; never raises OSError.

    A stream that fails (its reader is gone, the disk is full) is silenced: what is told must not stop what is done.
    `stream` is None where the process was started without it.
    """
    if stream is None:
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except OSError:
        silence(stream)


def shorten(number: float) -> str:
    """Write a count in few characters: 950, 12.3k, 4.56M."""
    for divisor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= divisor:
            return f"{number / divisor:.3g}{suffix}"
    return f"{number:.3g}"
