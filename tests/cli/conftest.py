"""Commands run as a user runs them, on models that train in a second."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RESOURCES = ROOT / "config" / "resources"
STORIES_TOKENIZER = RESOURCES / "tokenizers" / "stories_4k"
SMALL = [
    "model.d_model=32",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.context_length=64",
    "training.max_steps=4",
    "training.batch_size=4",
    "training.eval_every=2",
    "training.eval_batches=2",
    "optimizer.warmup_steps=1",
    "logging.log_every=1",
    "checkpointing.every=2",
    "sampling.every=0",
    "sampling.num_samples=1",
    "sampling.total_length=24",
    "sampling.steps=8",
    "sampling.block_length=8",
]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def in_workspace(tmp_path, monkeypatch):
    """Run in an empty folder that sees the shipped configurations, so that runs/ is the test's own."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys) -> Callable[..., Outcome]:
    """Call a command's main in this process: run(main, "train.toml", "key=value", ...)."""

    def call(main, config: str | Path, *overrides: str) -> Outcome:
        capsys.readouterr()
        arguments = ["--config", str(RESOURCES / config)]
        for override in overrides:
            arguments += ["--set", override]
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def train_small(run) -> Callable[..., Outcome]:
    """Train the default configuration, made small."""
    from cli.train import main

    return lambda *overrides, config="train.toml": run(main, config, *SMALL, *overrides)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Callable[[str], Path]:
    """Train a small model of an objective once, and return its run folder, to be copied."""
    from cli.train import main

    folders: dict[str, Path] = {}

    def train(objective: str) -> Path:
        if objective not in folders:
            runs = tmp_path_factory.mktemp("runs")
            overrides = [f"objective.name={objective}", "logging.run_name=mine", f"logging.runs_path={runs}"]
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(small_training(*overrides, "training.max_steps=2")) == 0
            folders[objective] = runs / "mine"
        return folders[objective]

    return train


@pytest.fixture(params=["autoregressive", "masked_diffusion"])
def checkpoint(request, trained) -> Path:
    """Return the run folder of a trained small model of each objective; runs/latest points at it."""
    shutil.copytree(trained(request.param), "runs/mine", symlinks=True)
    Path("runs/latest").symlink_to("mine")
    return Path("runs/mine")


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    """Start a command as a process of its own, output piped."""

    def begin(*arguments: str, stdin: int | None = None, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            # As a script's background job: nothing may rely on SIGINT being heard by default.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )

    return begin


@pytest.fixture
def small_arguments() -> Callable[..., list[str]]:
    """Return the arguments of transformerlm-train for the default configuration, made small."""
    return small_training


def small_training(*overrides: str) -> list[str]:
    """Write overrides as arguments."""
    pairs = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
    return ["--config", str(RESOURCES / "train.toml"), *pairs]
