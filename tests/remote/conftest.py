"""One host on the loopback for each process of tests, provisioned once by the recipes themselves."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer

sys.path.insert(0, str(Path(__file__).parent))  # for loopback and provider

from loopback import (
    Laptop,
    LoopbackHost,
    find_tool,
    is_roomy,
    link_tools,
    make_environment,
    make_laptop,
    require_tools,
)
from provider import API_KEY, Provider


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A short folder, since tmux's sockets may have 108 bytes; in memory, since a host is 30,000 links to packages."""
    require_tools()
    folder = Path(tempfile.mkdtemp(prefix="tlm-", dir="/dev/shm" if is_roomy(Path("/dev/shm")) else "/tmp"))
    folder.chmod(0o711)  # an unprivileged session has to find its home
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_host(base):
    """Start further hosts: make_host(name, **changes of its environment)."""
    hosts: list[LoopbackHost] = []

    def make(name: str, options: tuple[str, ...] = (), **environment: str) -> LoopbackHost:
        folder = base / name
        folder.mkdir()
        folder.chmod(0o711)
        tools = folder / "bin"
        link_tools(tools, ["uv", "just", "tmux", "rsync", "git", "curl"])
        (tools / "nvitop").write_text('#!/bin/sh\necho "nvitop was started: $*"\n')  # there is no GPU to watch
        (tools / "nvitop").chmod(0o755)
        home = folder / "home o'f"
        host = LoopbackHost(folder, {**make_environment(home, tools), **environment}, list(options))
        host.start()
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        host.close()


@pytest.fixture(scope="session")
def host(make_host) -> LoopbackHost:
    """The rented host."""
    return make_host("a")


@pytest.fixture(scope="session")
def laptop(base, host) -> Laptop:
    """The checkout from which recipes are called."""
    folder = base / "laptop"
    folder.mkdir()
    return make_laptop(folder, {"node-a": host})


@pytest.fixture(scope="session")
def provisioned(laptop, host) -> LoopbackHost:
    """The host after just bootstrap-remote."""
    laptop.just("bootstrap-remote", timeout=300)
    return host


@pytest.fixture
def hub() -> Iterator[FileServer]:
    """A Hub that has GPT-2's vocabulary, or what passes for it."""
    folder = "/openai-community/gpt2/resolve/main"
    server = FileServer({f"{folder}/vocab.json": b"vocabulary", f"{folder}/merges.txt": b"merges"})
    yield server
    server.close()


@pytest.fixture(scope="session")
def marks(base) -> Path:
    """A folder that stays empty while nothing that was data is run."""
    folder = base / "marks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def prime(base) -> str:
    """The folder of the provider's own command line, installed for these tests."""
    if (path := os.environ.get("TEST_PRIME")) or (path := shutil.which("prime")):
        return str(Path(path).parent)
    uv, folder = find_tool("uv"), base / "prime"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), "prime"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"prime cannot be installed: {done.stderr[-300:]}")
    return str(folder / "bin")


@pytest.fixture
def provider(laptop, host, prime, monkeypatch):
    """The API, and a laptop whose prime asks it; pods are the loopback host. PRIME_HOST names no pod at all."""
    user = host.stanza("x").split("User ")[1].split("\n")[0]
    provider = Provider(f"{user}@127.0.0.1 -p {host.port}")
    settings = laptop.home / ".prime/config.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"ssh_key_path": str(host.base / "user_key")}))
    changes = {
        "PATH": f"{prime}:{laptop.environment['PATH']}",
        "PRIME_API_BASE_URL": provider.url,
        "PRIME_API_KEY": API_KEY,
        "PRIME_DISABLE_VERSION_CHECK": "1",
        "PRIME_HOST": "",
        "PRIME_SSH_CONFIG": "",
        "REMOTE_RETRY_S": "0.1",
    }
    for name, value in changes.items():
        monkeypatch.setitem(laptop.environment, name, value)
    yield provider
    provider.close()
    (laptop.checkout / "env/ssh_config").unlink(missing_ok=True)
    shutil.rmtree(laptop.checkout / "runs", ignore_errors=True)


@pytest.fixture(autouse=True)
def no_job_is_left(request) -> Iterator[None]:
    """End what a failed test left running."""
    yield
    if "host" in request.fixturenames:
        request.getfixturevalue("host").shell("tmux kill-session -t =transformerlm-train")
