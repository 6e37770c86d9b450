"""A rented host on the loopback: a real sshd, with a home, a checkout and a PATH of its own, and a laptop beside it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {"ssh": "openssh-client", "sshd": "openssh-server", "tmux": "tmux", "rsync": "rsync", "git": "git"}
ROOT_NAME = "trans 'former\"s $(touch pwned);"
"""A root folder on the host whose name is data, not code."""
PASSED_ON = ("PIP_", "UV_", "SSL_", "REQUESTS_CA", "CURL_CA", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def settings(**changes: object) -> str:
    """Return words that set keys of a configuration."""
    return " ".join(f"--set {name.replace('__', '.')}={value}" for name, value in changes.items())


_SHORT = {
    "optimizer__warmup_steps": 1,
    "training__skip_validation": "true",
    "sampling__num_samples": 1,
    "logging__log_every": 1,
}
QUICK = settings(training__max_steps=4, **_SHORT)
"""Makes config/resources/train.toml, the small default, a matter of seconds."""
LONG = settings(training__max_steps=100_000, **_SHORT)
"""Trains until it is stopped."""


def find_tool(name: str) -> str | None:
    """Return a command's path, looking where administrators' commands lie too."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin:{Path(sys.executable).parent}")


def require_tools() -> None:
    """Install what is missing by name where that can be done, and skip, saying what, where it cannot."""
    missing = [package for command, package in PACKAGES.items() if find_tool(command) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True}
        subprocess.run([*apt, "update"], **quiet)
        subprocess.run([*apt, "install", "--no-install-recommends", *missing], **quiet)
    lacking = [command for command in (*PACKAGES, "just", "uv", "curl") if find_tool(command) is None]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}, and they cannot be installed here (not root, or no apt-get)")


def find_uv() -> str:
    """Return uv's own binary: what lies on PATH may be a shim that depends on the home folder."""
    code = "import os; print(os.environ['UV'])"
    command = [find_tool("uv"), "run", "--quiet", "--no-project", sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_roomy(folder: Path) -> bool:
    """Tell whether a folder takes a gigabyte, and programs."""
    if not os.access(folder, os.W_OK):
        return False
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize > 2**30 and not status.f_flag & os.ST_NOEXEC


def link_tools(folder: Path, names: list[str]) -> None:
    """Put these commands, wherever they lie here, into a folder for PATH."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to(find_uv() if name == "uv" else find_tool(name))


def link_system(folder: Path, without: list[str]) -> None:
    """Put all of the system's commands into a folder for PATH, apart from some."""
    folder.mkdir(exist_ok=True)
    for source in (Path("/usr/sbin"), Path("/usr/bin"), Path("/bin")):
        for path in source.iterdir():
            if path.name not in without and not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path)


@dataclass
class LoopbackHost:
    """One sshd with its own home; `environment` is what its sessions see."""

    base: Path
    environment: dict[str, str]
    options: list[str] = field(default_factory=list)
    port: int = 0
    server: subprocess.Popen | None = None

    @property
    def home(self) -> Path:
        return Path(self.environment["HOME"])

    @property
    def root(self) -> Path:
        return self.home / ROOT_NAME

    @property
    def log(self) -> str:
        return (self.base / "sshd.log").read_text(errors="replace")

    def start(self) -> None:
        """Start sshd on a free port, as a process of its own."""
        self.home.mkdir(exist_ok=True)
        for key in ("host_key", "user_key"):
            if not (self.base / key).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.base / key)]
                subprocess.run(command, check=True)
        quoted = (f'"{name}={value}"'.replace("\\", "\\\\") for name, value in self.environment.items())
        settings = [
            f"HostKey {self.base}/host_key",
            f"AuthorizedKeysFile {self.base}/user_key.pub",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
            "MaxStartups 100",
            "SetEnv " + " ".join(quoted),
            *self.options,
        ]
        (self.base / "sshd_config").write_text("\n".join(settings) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it when it is root
        for _ in range(5):  # another process may take the port first
            if self._try_to_start(self.port or free_port()):
                return
        pytest.fail(f"sshd does not start:\n{self.log}")

    def _try_to_start(self, port: int) -> bool:
        command = [find_tool("sshd"), "-D", "-e", "-f", f"{self.base}/sshd_config", "-o", "ListenAddress=127.0.0.1"]
        with (self.base / "sshd.log").open("a") as log:
            self.server = subprocess.Popen(
                [*command, "-p", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(100):
            if self.server.poll() is not None:
                return False
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    self.port = port
                    return True
            time.sleep(0.05)
        return False

    def stanza(self, alias: str) -> str:
        """Return the lines of an ssh configuration that lead here."""
        return (
            f"Host {alias}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.base}/user_key\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  UserKnownHostsFile {self.base}/known_hosts\n  StrictHostKeyChecking accept-new\n"
        )

    def shell(self, command: str) -> subprocess.CompletedProcess:
        """Run a command as the host's own shell would."""
        return subprocess.run(
            ["bash", "-c", command], env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=60
        )

    def has_session(self) -> bool:
        """Tell whether training runs."""
        return self.shell("tmux has-session -t =transformerlm-train").returncode == 0

    def cut_connections(self) -> None:
        """End the sessions that are open, and nothing that they left in the background."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)

    def close(self) -> None:
        """End the jobs, the sessions, the server."""
        self.shell("tmux kill-server")
        self.server.terminate()
        self.server.wait(10)


@dataclass
class Laptop:
    """A checkout from which recipes are called, in a folder that is not the checkout."""

    base: Path
    checkout: Path
    elsewhere: Path
    home: Path
    environment: dict[str, str]

    def just(self, *words: str, expect: int | None = 0, timeout: float = 120, **variables: str) -> str:
        """Run a recipe to its end; returns what it prints on both streams. `expect` is its exit code, None any."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.elsewhere,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",  # names may be any bytes
            timeout=timeout,
        )
        assert expect is None or done.returncode == expect, f"exit code {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        """Start a recipe, its output going to a pipe."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.elsewhere,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, *words: str) -> list[str]:
        return [find_tool("just"), "-f", str(self.checkout / "Justfile"), *words]

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.checkout), "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_environment(home: Path, tools: Path) -> dict[str, str]:
    """Return what a session on the host sees: its own home and commands, and this machine's caches of packages."""
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    cache = subprocess.run([find_uv(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        **passed_on,
        "HOME": str(home),
        "PATH": f"{tools}:/usr/bin:/bin",
        "TMUX_TMPDIR": str(home.parent),
        "UV_CACHE_DIR": cache,
        "UV_LINK_MODE": "symlink",  # nothing is copied, wherever the cache lies
        "UV_PYTHON": sys._base_executable,
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),  # compiled kernels
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
    }


def make_laptop(base: Path, hosts: dict[str, LoopbackHost]) -> Laptop:
    """Copy this checkout as it is, and write an ssh configuration that knows the hosts."""
    laptop_home, elsewhere, checkout = base / "my home", base / "some where's else", base / 'my "check" out'
    for folder in (laptop_home, elsewhere, checkout):
        folder.mkdir()
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, checkout / name)
    config = base / "ssh config"
    config.write_text("\n".join(host.stanza(alias) for alias, host in hosts.items()))
    hidden = ("GIT_", "TMUX", "WANDB", "PRIME", "SSH_", "REMOTE_", "HF_", "CMD_INFER", "TRANSFORMERLM")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {
        "HOME": str(laptop_home),
        "PRIME_HOST": next(iter(hosts)),
        "PRIME_SSH_CONFIG": str(config),
        "REMOTE_ROOT": f"~/{ROOT_NAME}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    laptop = Laptop(base, checkout, elsewhere, laptop_home, environment)
    laptop.git("init", "--quiet")
    laptop.git("add", "--all")
    laptop.git("commit", "--quiet", "--message", "first")
    return laptop


def wait_until(condition, seconds: float = 20) -> bool:
    """Wait for something to become true; returns whether it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def command_lines() -> list[str]:
    """Return the command lines of all processes, as anyone on the machine can read them."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # it ended meanwhile
    return lines
