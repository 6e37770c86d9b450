"""Connections that break, at any moment of any recipe, and hosts that are silent."""

import os
import shutil
import time
from pathlib import Path

import pytest
from loopback import LONG, QUICK, command_lines, wait_until

pytestmark = pytest.mark.remote


def test_a_host_that_cannot_be_reached_is_named(laptop, provisioned):
    for recipe in ("bootstrap-remote", "train", "fetch-run", "list-runs", "wait-train"):
        variables = {"PRIME_HOST": "nobody@127.0.0.1 -p 1", "REMOTE_RETRY_S": "0.1", "REMOTE_PATIENCE_S": "0.3"}
        output = laptop.just(recipe, expect=255, **variables)
        assert "nobody@127.0.0.1 cannot be reached" in output, recipe
        assert "PRIME_HOST names the host" in output


LONG_RECIPES = {
    "bootstrap-remote": (),
    "build-remote": (),
    "data-remote": (),
    "train": (f"extra={QUICK} --set logging.run_name=cut",),
    "infer": ("command=sleep 50.5",),
    "wait-train": (),
    "fetch": ("any_file=runs/cut off",),
    "fetch-run": ("run=cut off",),
    "list-runs": (),
    "status-train": (),
    "kill-train": (),
    "sync-env": (),
    "nvitop": (),
}


@pytest.mark.parametrize("recipe", LONG_RECIPES)
def test_a_lost_connection_is_told_and_the_recipe_can_be_run_again(laptop, provisioned, hub, recipe):
    """The connection breaks once it is there, at a moment of chance; then all must be as if it had not been."""
    big = provisioned.root / "runs/cut off/big"
    if recipe.startswith("fetch"):
        big.parent.mkdir(exist_ok=True)
        big.write_bytes(os.urandom(40_000_000))
        (big.parent / "config.toml").touch()
    key = laptop.checkout / "env/wandb.env"
    if recipe == "sync-env":
        key.write_text("A=b\n")
    if recipe == "wait-train":
        laptop.just("train", f"extra={LONG}")
    variables = {"HF_ENDPOINT": hub.url, "REMOTE_PATIENCE_S": "0"}
    process = laptop.start(recipe, *LONG_RECIPES[recipe], **variables)
    seen = provisioned.log.count("Starting session")
    assert wait_until(lambda: provisioned.log.count("Starting session") > seen or process.poll() is not None)
    time.sleep(0.15)
    provisioned.cut_connections()
    output = process.communicate(timeout=120)[0]
    assert process.returncode in (0, 255), output  # it may have been done already
    if process.returncode == 255:
        assert "the connection was lost" in output
    assert wait_until(lambda: "sleep 50.5" not in provisioned.shell("ps -eo args").stdout), "nothing is left running"
    if recipe == "wait-train":
        laptop.just("kill-train", "grace=1")
    elif recipe == "infer":
        laptop.just("infer", "command=true")
    elif recipe == "train":
        laptop.just("kill-train", "grace=1")
        shutil.rmtree(provisioned.root / "runs/cut", ignore_errors=True)
        laptop.just("train", *LONG_RECIPES["train"])
        laptop.just("wait-train", "every=0.2")
    elif recipe != "status-train":
        laptop.just(recipe, *LONG_RECIPES[recipe], **variables)
    if recipe.startswith("fetch"):
        there = laptop.elsewhere if recipe == "fetch" else laptop.checkout / "runs"
        assert (there / "cut off/big").read_bytes() == big.read_bytes()
        shutil.rmtree(there / "cut off")
        shutil.rmtree(big.parent)
    if recipe == "sync-env":
        assert (provisioned.root / "env/wandb.env").read_text() == "A=b\n"
        key.unlink()
        (provisioned.root / "env/wandb.env").unlink()


def cut_in_session(laptop, host, number: int, *words: str, **variables: str) -> tuple[int, str]:
    """Cut the connection while a recipe is in the number-th of its ssh sessions; returns its exit code and output."""
    seen = host.log.count("Starting session")
    process = laptop.start(*words, **variables)
    assert wait_until(lambda: host.log.count("Starting session") >= seen + number or process.poll() is not None, 100)
    time.sleep(0.1)
    host.cut_connections()
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def test_auto_train_goes_on_after_a_cut_in_each_of_its_sessions(laptop, provisioned, hub):
    """Tools, root, push, checkout, packages, data, credentials, comparison, launch, log: ten sessions."""
    key, big = laptop.checkout / "env/wandb.env", laptop.checkout / "big.bin"
    key.write_text("A=b\n")
    words = ("auto-train", f"extra={LONG} --set logging.run_name=in_one")
    told = 0
    try:
        for number in range(1, 11):
            if number == 3:
                big.write_bytes(os.urandom(30_000_000))  # a push that takes its time
            code, output = cut_in_session(laptop, provisioned, number, *words, HF_ENDPOINT=hub.url)
            assert code in (0, 1, 255), output
            assert code != 255 or "the connection was lost" in output
            assert code != 1 or "the source did not arrive" in output
            told += code != 0
            if number >= 9 or provisioned.has_session():  # a cut that came late: what was launched goes on
                laptop.just("kill-train", "grace=1")
                shutil.rmtree(provisioned.root / "runs/in_one", ignore_errors=True)
        assert told >= 8, "a cut may come when all is done, but rarely"
        assert "just logs-train follows it" in laptop.just(*words, timeout=300, HF_ENDPOINT=hub.url)
        assert (provisioned.root / "env/wandb.env").read_text() == "A=b\n"
        assert (provisioned.root / "big.bin").read_bytes() == big.read_bytes()
        laptop.just("kill-train", "grace=1")
    finally:
        key.unlink()
        big.unlink(missing_ok=True)
        (provisioned.root / "env/wandb.env").unlink(missing_ok=True)
    laptop.just("bootstrap-remote")


def test_resume_train_goes_on_after_a_cut_in_each_of_its_sessions(laptop, provisioned):
    """Name, comparison, launch, log: no attempt may harm the run that is resumed."""
    laptop.just("train", f"extra={QUICK} --set logging.run_name=again")
    laptop.just("wait-train", "every=0.2")
    told = 0
    for number in range(1, 5):
        code, output = cut_in_session(laptop, provisioned, number, "resume-train", "run=again", f"extra={LONG}")
        assert code in (0, 255), output
        assert code != 255 or "the connection was lost" in output
        told += code != 0
        if number == 4:
            assert provisioned.has_session(), "training goes on"
        if number >= 3 or provisioned.has_session():  # a cut that came late
            laptop.just("kill-train")
    assert told >= 3
    saved = (provisioned.root / "runs/again/checkpoints/latest").readlink().name
    last = int(saved.removeprefix("step_")) + 2
    laptop.just("resume-train", "run=again", f"extra={QUICK} --set training.max_steps={last}")
    laptop.just("wait-train", "every=0.2")
    assert (provisioned.root / "runs/again/checkpoints/latest").readlink().name == f"step_{last:08d}"


@pytest.fixture
def replace_command(provisioned):
    """Put a script in place of a command of the host, until the test ends."""
    replaced: list[tuple[Path, Path | None]] = []

    def replace(name: str, script: str) -> None:
        path = provisioned.base / "bin" / name
        replaced.append((path, path.readlink() if path.is_symlink() else None))
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    yield replace
    for path, target in replaced:
        path.unlink()
        if target is not None:
            path.symlink_to(target)


def local_ssh(function: str) -> list[str]:
    """Return the ssh processes that are at work on something, on this side."""
    return [line for line in command_lines() if line.startswith("ssh ") and function in line]


def test_a_host_that_never_takes_the_source_is_given_up(laptop, provisioned, replace_command):
    """Its sshd answers all the time, so ssh alone would wait for ever."""
    replace_command("git-receive-pack", "#!/bin/sh\nexec sleep 300\n")
    output = laptop.just("bootstrap-remote", expect=255, REMOTE_SILENCE_S="3")
    assert "node-a is connected but has not answered for 3 s" in output
    assert "REMOTE_SILENCE_S" in output
    assert wait_until(lambda: not local_ssh("git-receive-pack")), "nothing of ours is left"


def test_a_host_that_never_answers_a_question_is_given_up(laptop, provisioned, replace_command):
    replace_command("bash", "#!/bin/sh\nexec sleep 300\n")
    output = laptop.just("kill-train", expect=255, REMOTE_SILENCE_S="1")
    assert "node-a is connected but has not answered for 1 s" in output
    assert wait_until(lambda: not local_ssh("bash -s"))


def test_a_host_that_takes_the_source_slowly_is_waited_for(laptop, provisioned, replace_command):
    """Longer than it may be silent, and without a word in the output for every percent."""
    slowly = "import os, time\nwhile part := os.read(0, 65536): os.write(1, part); time.sleep(0.02)"
    replace_command("git-receive-pack", f"#!/bin/sh\npython3 -c '{slowly}' | git receive-pack \"$1\"\n")
    big = laptop.checkout / "big.bin"
    big.write_bytes(os.urandom(24_000_000))
    try:
        began = time.monotonic()
        output = laptop.just("bootstrap-remote", REMOTE_SILENCE_S="5")
        assert time.monotonic() - began > 7
        assert "%" not in output
        assert (provisioned.root / "big.bin").stat().st_size == 24_000_000
    finally:
        big.unlink()
    laptop.just("bootstrap-remote")
