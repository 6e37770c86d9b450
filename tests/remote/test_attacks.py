"""A full disk, two launches at once, a host on which one is nobody."""

import os
import subprocess

import pytest
from loopback import LONG, QUICK, find_tool, link_system, link_tools

pytestmark = pytest.mark.remote


def test_of_two_launches_at_once_one_begins(laptop, provisioned):
    started = [laptop.start("train", f"extra={LONG}") for _ in range(3)]
    outputs = [process.communicate(timeout=180)[0] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], outputs
    assert sum("training is running already" in output for output in outputs) == 2
    assert "just attach-train shows it, just kill-train ends it" in "".join(outputs)
    laptop.just("kill-train", "grace=1")
    assert len([job for job in (provisioned.root / "runs/.jobs").iterdir() if not (job / "state").exists()]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_what_was_there_stays(laptop, provisioned, hub):
    disk = provisioned.home / "small disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not possible here: {mounted.stderr.decode().strip()}")
    root = {"REMOTE_ROOT": "small disk/root", "HF_ENDPOINT": hub.url}
    try:
        (disk / "filler").write_bytes(bytes(2_500_000))
        assert "No space left" in laptop.just("bootstrap-remote", expect=None, **root)
        subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
        (disk / "filler").unlink()
        laptop.just("bootstrap-remote", timeout=300, **root)  # as if nothing had been
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
        hub.files["/openai-community/gpt2/resolve/main/vocab.json"] = bytes(100_000)
        assert "the data did not come whole" in laptop.just("data-remote", expect=1, **root)
        (laptop.checkout / "env/wandb.env").write_text("WANDB_API_KEY=" + 9000 * "k" + "\n")
        assert "is its disk full?" in laptop.just("sync-env", expect=1, **root)
        assert not (disk / "root/env/wandb.env").exists(), "no half of a key"
        output = laptop.just("train", f"extra={QUICK}", expect=1, **root)
        assert "is the host's disk full?" in output
        (disk / "filler").unlink()
        laptop.just("train", f"extra={QUICK}", **root)
        laptop.just("wait-train", "every=0.2", **root)
    finally:
        (laptop.checkout / "env/wandb.env").unlink(missing_ok=True)
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def unprivileged(make_host, base, request):
    """A host on which one is nobody, without sudo; its tools are those that are named."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody without rights needs root first")

    def make(name: str, tools: list[str]):
        become_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        host = make_host(name, options=(f'ForceCommand exec {become_nobody} bash -c "$SSH_ORIGINAL_COMMAND"',))
        tool_folder = host.base / "tools"
        link_system(tool_folder, without=["sudo", "git", "tmux", "rsync", "just", "uv"])
        link_tools(tool_folder, tools)
        host.server.terminate()
        host.server.wait()
        host.environment |= {"PATH": str(tool_folder), "TMUX_TMPDIR": str(host.home)}
        host.environment |= {"UV_CACHE_DIR": str(host.home / "cache"), "UV_OFFLINE": "1"}  # nothing is downloaded
        host.environment["UV_PYTHON"] = "/usr/bin/python3"
        for path in (host.home, *host.home.rglob("*")):
            os.chown(path, 65534, 65534)
        host.start()
        config = base / f"{name} config"
        config.write_text(host.stanza(name))
        return host, {"PRIME_HOST": name, "PRIME_SSH_CONFIG": str(config)}

    return make


def test_what_is_missing_is_installed_by_name(laptop, make_host, base):
    """A package manager that puts what it is asked for on PATH stands in for Debian's: this machine has it all."""
    if os.geteuid() != 0:
        pytest.skip("installing packages needs root")
    host = make_host("new")
    for name in ("tmux", "rsync"):
        (host.base / "bin" / name).unlink()
    link_system(host.base / "bin", without=["tmux", "rsync", "apt-get"])
    apt = host.base / "bin/apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$*" >>{host.base}/asked\ncase "$*" in *install*tmux*rsync*) '
        f"ln -s {find_tool('tmux')} {find_tool('rsync')} {host.base}/bin/ ;; esac\n"
    )
    apt.chmod(0o755)
    host.server.terminate()
    host.server.wait()
    host.environment["PATH"] = str(host.base / "bin")
    host.start()
    (host.root).mkdir()
    (host.root / "in the way").touch()  # this ends after the tools
    config = base / "new config"
    config.write_text(host.stanza("new"))
    output = laptop.just("bootstrap-remote", expect=1, PRIME_HOST="new", PRIME_SSH_CONFIG=str(config))
    assert "installing tmux rsync" in output
    assert "holds something else" in output
    asked = (host.base / "asked").read_text().splitlines()
    assert [line.split("-qq ")[1] for line in asked] == ["update", "install tmux rsync"]


def test_without_root_or_sudo_one_is_told_what_to_install(laptop, unprivileged):
    _, variables = unprivileged("bare", ["git"])
    output = laptop.just("bootstrap-remote", expect=1, **variables)
    assert "this host lacks tmux rsync" in output
    assert "may not become root without a password" in output
    assert "apt-get install tmux rsync" in output


def test_without_root_or_sudo_nothing_is_missed_where_the_tools_are(laptop, unprivileged):
    """uv needs no root: it comes from the package index. What fails after it (no packages) names the next step."""
    host, variables = unprivileged("nobody", ["git", "tmux", "rsync"])
    output = laptop.just("bootstrap-remote", expect=1, **variables)
    if "uv could not be installed" in output:
        pytest.skip(f"no package index can be reached: {output[-200:]}")
    assert "installing uv" in output
    assert (host.home / ".local/bin/uv").exists(), output
    assert "nvitop could not be installed; training does not need it" in output
    assert (host.root / "cli/train.py").stat().st_uid == 65534
    assert "mend that and run: just build-remote" in output
