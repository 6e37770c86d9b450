"""From an empty host to a text at home: just auto-train, and all that follows until the model is used here."""

import json
import subprocess
import sys

import pytest
from loopback import LONG, QUICK, wait_until

pytestmark = pytest.mark.remote


def test_auto_train_is_followed_stopped_resumed_fetched_and_used(laptop, host, hub):
    """One job through all its recipes, since each needs what the one before left."""
    started = laptop.just("auto-train", f"extra={LONG}", timeout=300, HF_ENDPOINT=hub.url)
    assert "just logs-train follows it" in started
    assert (host.root / "data/fetched/vocab_gpt2.json").read_bytes() == b"vocabulary"
    for folder in ("data", "runs", "env", ".venv"):
        assert (host.root / folder).is_dir()
    assert "env/wandb.env is not there" in started

    follower = laptop.start("logs-train")
    lines = iter(follower.stdout.readline, "")
    assert any("1.38 M parameters" in line for line in lines), "the small default"
    assert any('"step": 3' in line for line in lines), "the log is followed while it grows"
    assert "state     running" in laptop.just("status-train")

    assert "training ended with exit code 75" in laptop.just("kill-train"), "which says: saved, resume me"
    assert "stopped by SIGTERM after step" in follower.stdout.read(), "the follower sees the end"
    assert follower.wait(20) == 0
    assert "exit 75" in laptop.just("status-train")
    assert "exit code 75" in laptop.just("wait-train", expect=75)
    assert not host.has_session()

    name = (host.root / "runs/latest").readlink().name
    saved = (host.root / "runs" / name / "checkpoints/latest").readlink().name
    [listed] = [words for line in laptop.just("list-runs").splitlines() if (words := line.split())[0] == name]
    assert listed[1] == saved, "saved when it was stopped"
    step = int(saved.removeprefix("step_"))
    assert step >= 3

    laptop.just("resume-train", f"extra={QUICK} --set training.max_steps={step + 3}")
    laptop.just("wait-train", "every=0.2")
    assert f"step_{step + 3:08d}" in laptop.just("list-runs")

    assert f"checkpoint.path=runs/{name}" in laptop.just("fetch-run", f"run={name}")
    local = laptop.checkout / "runs" / name
    steps = [json.loads(line).get("step") for line in (local / "metrics.jsonl").read_text().splitlines()]
    assert set(range(1, step + 4)) <= set(steps), "no step is missing"
    summary = json.loads((local / "summary.json").read_text())
    assert summary
    command = [sys.executable, "-m", "cli.infer", "--config", "config/resources/infer.toml"]
    settings = [f"checkpoint.path=runs/{name}", "inference.num_samples=1", "inference.total_length=24"]
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {**laptop.environment, "PYTHONPATH": str(laptop.checkout)}
    text = subprocess.run(
        [*command, *words, "--prompt", "Once upon a time"],
        cwd=laptop.checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("Once upon a time")


def test_a_job_that_cannot_begin_says_so_at_once(laptop, provisioned):
    output = laptop.just("train", "extra=--set training.batch_sise=3", expect=2)
    assert "training.batch_sise: unknown setting (from --set); did you mean batch_size?" in output
    newer = laptop.checkout / "newer.toml"
    newer.touch()
    output = laptop.just("train", "config=newer.toml", expect=1)
    newer.unlink()
    assert "note: the host has another source than this checkout; just bootstrap-remote sends it" in output
    assert "there is no configuration" in output
    laptop.just("train", f"extra={QUICK} --set logging.run_name=twice")
    assert "exit code 0" in laptop.just("wait-train", "every=0.2")
    assert "exit 0" in laptop.just("status-train")
    output = laptop.just("train", f"extra={QUICK} --set logging.run_name=twice", expect=2)
    assert "the run folder runs/twice exists already" in output, "what fails later is shown from the log"
    assert "training ended at once with exit code 2" in output


def test_kill_train_leaves_a_session_of_a_similar_name(laptop, provisioned):
    provisioned.shell("tmux new-session -d -s transformerlm-train-2 'sleep 60'")
    laptop.just("kill-train")
    assert provisioned.shell("tmux has-session -t =transformerlm-train-2").returncode == 0
    provisioned.shell("tmux kill-session -t =transformerlm-train-2")


def test_a_host_that_was_restarted_has_lost_its_job(laptop, provisioned):
    laptop.just("train", f"extra={LONG}")
    job = sorted((provisioned.root / "runs/.jobs").iterdir())[-1]
    runner = (job / "runner").read_text().strip()
    provisioned.shell(f"kill -KILL -- -{runner}")
    assert wait_until(lambda: not provisioned.has_session())
    assert "lost (it ended without a record" in laptop.just("status-train")
    assert "lost" in laptop.just("wait-train", "every=0.2", expect=1)
