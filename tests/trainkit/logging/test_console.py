"""The console is tidy for people and JSON for pipes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trainkit_workers import make_record, make_settings, make_trainer

from trainkit.distributed.parallel import World
from trainkit.logging.console import ConsoleLogger, shorten
from trainkit.metrics import EvaluationRecord, json_line

RECORD = make_record(step=120, loss=3.41237, learning_rate=2.9e-4, metrics={"accuracy": 0.25, "norm/head": 2.0})


def test_piped_output_is_nothing_but_json_lines(capsys):
    make_trainer(World(), make_settings(), callbacks=[ConsoleLogger(unit="tokens")]).fit()
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "accuracy"} <= lines[0].keys()
    assert "\r" not in captured.err, "no progress bar in a pipe"


def test_a_terminal_gets_one_tidy_line_and_colour_only_if_wanted(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = ConsoleLogger(unit="tokens").format_step(RECORD)
    assert plain == "step    120  loss 3.4124  lr 2.9e-04  grad 0.83    41k tokens/s  accuracy 0.25"
    assert len(plain) <= 80
    monkeypatch.delenv("NO_COLOR")
    assert "\033[" in ConsoleLogger(unit="tokens").format_step(RECORD)


def write_two_lines_to(redirection: str) -> subprocess.CompletedProcess:
    """Print to a failing standard output; what is left in its buffer fails again when Python exits."""
    script = (
        "from trainkit.logging.console import write_line\n"
        "import sys\n"
        "for line in ('one', 'two'): write_line(line, sys.stdout)\n"
        "write_line('still training', sys.stderr)\n"
    )
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, script]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    return subprocess.run(command, stderr=subprocess.PIPE, env=buffered, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">/dev/full", "> >(true)", ">&-"])
def test_a_failing_standard_output_is_silenced_and_does_not_reach_training(redirection):
    ended = write_two_lines_to(redirection)
    assert (ended.returncode, ended.stderr) == (0, b"still training\n")


def test_a_process_without_standard_streams_trains(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    assert make_trainer(World(), make_settings(), callbacks=[ConsoleLogger()]).fit().step == 3


def test_an_evaluation_reads_as_a_line(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    record = EvaluationRecord(step=200, loss=3.2, weight=20480.0, batches=4, metrics={})
    assert ConsoleLogger(unit="tokens").format_evaluation(record) == (
        "step    200  validation loss 3.2000  over 20.5k tokens"
    )


def test_an_interruption_says_how_to_resume(capsys):
    ConsoleLogger(resume_command="train --resume").on_stop(7, signal.SIGINT, Path("runs/a/checkpoints/step_00000007"))
    assert capsys.readouterr().err.strip() == (
        "stopped by SIGINT after step 7: saved runs/a/checkpoints/step_00000007; to resume: train --resume"
    )


def test_numbers_that_json_lacks_become_null():
    assert json.loads(json_line({"step": 1, "grad_norm": float("inf"), "loss": float("nan")})) == {
        "step": 1, "grad_norm": None, "loss": None,
    }  # fmt: skip


@pytest.mark.parametrize(("number", "text"), [(9.5, "9.5"), (999, "999"), (12_345, "12.3k"), (4.56e6, "4.56M")])
def test_counts_are_short(number, text):
    assert shorten(number) == text
