"""A job that runs: its terminal, its log through a connection that breaks, and its end when it does not listen."""

import os
import pty
import select
import time

import pytest
from loopback import LONG, wait_until

pytestmark = pytest.mark.remote


def test_a_job_is_shown_survives_broken_connections_and_is_killed_when_it_does_not_listen(laptop, provisioned):
    """All with one job, since starting one takes longest."""
    laptop.just("train", f"extra={LONG}")
    code, seen = watch_terminal(laptop, press_ctrl_b_d)
    assert code == 0
    assert b"detached" in seen
    code, seen = watch_terminal(laptop, lambda _: provisioned.cut_connections())
    assert code == 255
    assert b"the connection was lost" in seen
    assert provisioned.has_session()
    follow_through_a_cut(laptop, provisioned)
    assert provisioned.has_session(), "training goes on"
    insist(laptop, provisioned)
    assert "no training is running" in laptop.just("attach-train", expect=1)
    assert "no training is running" in laptop.just("kill-train")


def press_ctrl_b_d(terminal: int) -> None:
    """Leave tmux; the keys come apart, since tmux takes fast ones for pasted text."""
    os.write(terminal, b"\x02")
    time.sleep(0.5)
    os.write(terminal, b"d")


def watch_terminal(laptop, leave) -> tuple[int, bytes]:
    """Attach in a real terminal, see a step, leave; returns the exit code and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(laptop.elsewhere)
        command = laptop.command("attach-train")
        os.execve(command[0], command, {**laptop.environment, "TERM": "xterm"})
    seen, is_leaving, deadline = b"", False, time.monotonic() + 100
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the other side is gone
                break
        if b'"step"' in seen and not is_leaving:
            is_leaving = True
            leave(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def follow_through_a_cut(laptop, provisioned) -> None:
    """Follow the log until the connection breaks: that is told, and nothing is left on the host."""
    follower = laptop.start("logs-train")
    is_following = "pgrep -f 'tail -n [5]0 -f'"
    assert wait_until(lambda: provisioned.shell(is_following).stdout != "")
    provisioned.cut_connections()
    assert follower.wait(20) == 255
    assert "the connection was lost" in follower.stdout.read()
    assert wait_until(lambda: provisioned.shell(is_following).stdout == "")


def insist(laptop, provisioned) -> None:
    """Stop the process, so that it does not hear SIGTERM, and kill it."""
    job = sorted((provisioned.root / "runs/.jobs").iterdir())[-1]
    trainer = (job / "pid").read_text().strip()
    provisioned.shell(f"kill -STOP {trainer}")
    assert "still running after 1 s: killing it" in laptop.just("kill-train", "grace=1")
    assert not provisioned.has_session()
    assert wait_until(lambda: provisioned.shell(f"kill -0 {trainer}").returncode != 0)
    assert "exit 137" in laptop.just("status-train")
