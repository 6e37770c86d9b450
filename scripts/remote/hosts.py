"""A host behind ssh: run one of the functions of tasks.sh there, copy files from it, open a terminal on it.

The command that ssh is given is always the constant `bash -s`. The functions, the root folder and every argument travel
on standard input, quoted, so no shell parses user text and nothing of it can be read in a list of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from arguments import UsageError

FOLDER = Path(__file__).resolve().parent
SCRIPTS = FOLDER.parent
CHECKOUT = SCRIPTS.parent
SSH = FOLDER / "ssh"
POD_CONFIG = CHECKOUT / "env" / "ssh_config"
DEFAULT_HOST = "prime-node"
DEFAULT_ROOT = "~/transformerlm"
CONNECTION_LOST = 255
SILENCE_S = float(os.environ.get("REMOTE_SILENCE_S") or 300)
"""How long a host may be silent that is connected and has to answer a short question, or to take what is sent."""
COMPANIONS = {"HOST_SH": "host.sh", "JOB_SH": "job.sh", "CHECK_WANDB": "check_wandb.py"}
"""Shell variables in which the scripts of the host find the text of these files."""
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.@-]*)(:(?P<port>\d+))?")


class RemoteError(Exception):
    """A recipe failed; whoever failed has said why, unless there is a message."""

    def __init__(self, exit_code: int, message: str = ""):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Host:
    """Where to connect to, and the folder that everything happens in."""

    address: str
    """What ssh takes: an alias of its configuration, or user@host."""
    port: str
    root: str
    config: str
    """An ssh configuration file, empty for the user's own."""
    variables: tuple[str, ...] = ()
    """Names of environment variables that are passed on if set."""

    def with_variables(self, names: tuple[str, ...]) -> Host:
        """Return the same host, to which these environment variables are passed on."""
        return dataclasses.replace(self, variables=names)

    def call(self, function: str, *arguments: str, script: str = "", is_attached: bool = True) -> None:
        """Run a function of tasks.sh, or of scripts/<script>, and show what it prints.

        Attached, it ends when the connection does. Raises RemoteError with its exit code.
        """
        self._run(function, arguments, script, is_attached, stdout=None)

    def ask(self, function: str, *arguments: str) -> str:
        """Run a function of tasks.sh and return what it prints."""
        return self._run(function, arguments, "", True, stdout=subprocess.PIPE)

    def _run(
        self, function: str, arguments: tuple[str, ...], script: str, is_attached: bool, stdout: int | None
    ) -> str:
        text = self._make_script(function, arguments, script, is_attached)
        process = subprocess.Popen(
            self._ssh("-T", self.address, "bash -s"), env=self._environment(), stdin=subprocess.PIPE, stdout=stdout
        )
        try:
            process.stdin.write(_encode(text))
            process.stdin.flush()
            if not is_attached:
                process.stdin.close()
            # Attached, the other side takes the end of its standard input for the end of us: keep it open.
            output = b"".join(_read(process.stdout)).decode(errors="replace") if process.stdout else ""
            exit_code = process.wait()
        except BrokenPipeError:
            output, exit_code = "", process.wait() or CONNECTION_LOST
        except TimeoutError:
            process.terminate()
            raise self._silence() from None
        finally:
            _close(process)
        self._check(exit_code)
        return output

    def _make_script(self, function: str, arguments: tuple[str, ...], script: str, is_attached: bool) -> str:
        if any("\0" in argument for argument in arguments):
            raise UsageError("an argument holds a NUL character, which no command can take")
        parts = [f"export {name}={shlex.quote(os.environ[name])}" for name in self.variables if name in os.environ]
        files = [FOLDER / "host.sh", FOLDER / "tasks.sh", *([SCRIPTS / script] if script else [])]
        parts += [f"REMOTE_ROOT={shlex.quote(self.root)}", *(file.read_text("utf-8") for file in files)]
        # What a job runs comes along too, so that it fits this half, whatever source is on the host.
        if script:
            parts += [f"{name}={shlex.quote((FOLDER / file).read_text('utf-8'))}" for name, file in COMPANIONS.items()]
        words = [function, *map(shlex.quote, arguments)]
        # One line, read whole before it runs: what it starts must not read the rest of the script.
        run = ["attached", *words] if is_attached else [*words, "</dev/null"]
        parts.append(f"{{ {' '.join(run)}; exit; }}\n")
        return "\n".join(parts)

    def open_terminal(self, command: str) -> None:
        """Run a constant command on a terminal of the host. Raises RemoteError with its exit code."""
        # Login shells differ: bash, named here, finds what bootstrap-remote installed.
        words = f"exec bash -c {shlex.quote('PATH=$HOME/.local/bin:$HOME/.cargo/bin:$PATH; exec ' + command)}"
        self._check(subprocess.call(self._ssh("-tt", self.address, words), env=self._environment()))

    def push(self, commit: str, root: str, branch: str) -> None:
        """Send a commit of the local checkout into the host's repository, showing progress on a terminal."""
        # Quiet but for its progress, by which a slow line is told from a host that takes nothing.
        command = ["git", "-C", str(CHECKOUT), "push", "--quiet", "--progress", "--force", "--no-verify"]
        command += [f"{self.address}:{root}", f"{commit}:refs/heads/{branch}"]
        with tempfile.TemporaryDirectory() as folder:
            pid_file = Path(folder) / "pid"
            environment = {"GIT_SSH": str(SSH), "GIT_SSH_VARIANT": "ssh", "REMOTE_PID_FILE": str(pid_file)}
            git = subprocess.Popen(command, env={**self._environment(), **environment}, stderr=subprocess.PIPE)
            try:
                said = _relay(git.stderr)
            except TimeoutError:
                git.terminate()
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # its ssh would outlive it
                    os.kill(int(pid_file.read_text()), signal.SIGTERM)
                raise self._silence() from None
            finally:
                git.stderr.close()
                exit_code = git.wait()
        if exit_code:
            print(said, end="", file=sys.stderr)
            message = "the source did not arrive (git says why, above: connection, or disk full?); run this again"
            raise RemoteError(1, message)

    def rsync(self, source: str, target: Path, *options: str) -> str:
        """Copy an absolute path of the host into a local folder; returns what rsync prints.

        What was cut off is continued by the next call. Raises RemoteError.
        """
        # -s: the path is sent as data, not as words of the host's shell. The wrapper's own path may hold spaces, which
        # -e would split, hence the relative one.
        command = ["rsync", "-rlt", "-s", "--partial", *options, "-e", "./ssh"]
        command += [f"{self.address}:{source}", f"{target}/"]
        done = subprocess.run(command, cwd=FOLDER, env=self._environment(), stdout=subprocess.PIPE)
        self._check(CONNECTION_LOST if done.returncode in (10, 12, 30, 35) else done.returncode)
        return done.stdout.decode(errors="replace")

    def unpack(self, source: str, target: Path) -> None:
        """Copy an absolute path of the host into a local folder, by tar: for where there is no rsync that takes -s."""
        script = self._make_script("pack", (source,), "", True)
        packer = subprocess.Popen(
            self._ssh("-T", self.address, "bash -s"),
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            packer.stdin.write(_encode(script))
            packer.stdin.flush()
            unpacker = subprocess.run(["tar", "-xf", "-", "-C", str(target)], stdin=packer.stdout)
            packer.stdout.close()
            self._check(packer.wait() or unpacker.returncode)
        finally:
            _close(packer)

    def _ssh(self, *words: str) -> list[str]:
        return [str(SSH), *words]

    def _environment(self) -> dict[str, str]:
        # Variables of git that a hook would bring along must not send it to another repository.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
        return {**inherited, "REMOTE_SSH_CONFIG": self.config, "REMOTE_SSH_PORT": self.port}

    def _silence(self) -> RemoteError:
        return RemoteError(
            CONNECTION_LOST,
            f"{self.address} is connected but has not answered for {SILENCE_S:g} s. Running the same recipe again is "
            "safe; if it stays so, look what hangs there (its disk?). REMOTE_SILENCE_S sets how long to wait",
        )

    def _check(self, exit_code: int) -> None:
        if exit_code == CONNECTION_LOST:
            raise RemoteError(
                CONNECTION_LOST,
                f"{self.address} cannot be reached, or the connection was lost (ssh says why, above). Running the same "
                "recipe again is safe. PRIME_HOST names the host: an alias of your ssh configuration or user@address",
            )
        if exit_code:
            raise RemoteError(exit_code if exit_code > 0 else 128 - exit_code)


def _encode(script: str) -> bytes:
    """Turn text into what is sent; a name that is not UTF-8 arrives as the bytes that it is."""
    return script.encode(errors="surrogateescape")


def _read(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield what comes from a pipe until it is closed; raises TimeoutError after SILENCE_S without anything."""
    while select.select([stream], [], [], SILENCE_S)[0]:
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            return
        yield chunk
    raise TimeoutError


def _relay(stream: IO[bytes]) -> str:
    """Show what git says as it comes, on a terminal; elsewhere return it, without the lines that it wrote over."""
    said = b""
    for chunk in _read(stream):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), chunk)
        else:
            said += chunk
    return re.sub(r"[^\n]*\r", "", said.decode(errors="replace"))


def _close(process: subprocess.Popen) -> None:
    """Let go of a process's standard input, which also tells the other side that we are done, and wait for it."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()


def find_hosts(nodes: str = "") -> list[Host]:
    """Return the hosts that are named: `nodes`, separated by spaces, or PRIME_HOST."""
    root = os.environ.get("REMOTE_ROOT") or DEFAULT_ROOT
    if "\n" in root or "\0" in root or root.startswith("-"):
        raise UsageError(f"REMOTE_ROOT: {root!r} cannot name a folder on the host; for example {DEFAULT_ROOT}")
    if nodes:
        return [make_host(node, root, name="nodes") for node in nodes.split()]
    return [make_host(os.environ.get("PRIME_HOST") or DEFAULT_HOST, root)]


def make_host(text: str, root: str, config: str = "", name: str = "PRIME_HOST") -> Host:
    """Read an address as providers show it: alias, user@address, user@address:port, `ssh user@address -p port`.

    Raises UsageError: what ssh could take for an option of its own is never passed on.
    """
    words = text.split()
    if words[:1] == ["ssh"]:
        words = words[1:]
    port = ""
    if len(words) == 3 and "-p" in words[:2] and words[words.index("-p") + 1].isdigit():
        at = words.index("-p")
        port = words[at + 1]
        words = words[:at] + words[at + 2 :]
    match = _ADDRESS.fullmatch(words[0]) if len(words) == 1 else None
    if match is None or (port and match["port"]):
        raise UsageError(
            f'{name}: "{text}" is no host; use an alias of your ssh configuration, user@address, or '
            '"user@address -p port". A key file and other options belong into the ssh configuration'
        )
    if not config:
        config = os.environ.get("PRIME_SSH_CONFIG") or (str(POD_CONFIG) if POD_CONFIG.is_file() else "")
    return Host(match["host"], port or match["port"] or "", root, config)
