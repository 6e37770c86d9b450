"""The recipes that bring files from the host."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path, PurePosixPath

from arguments import Arguments, UsageError
from hosts import CHECKOUT, Host, RemoteError, find_hosts
from recipes import caller_folder, check_run_name, say

RUNS = CHECKOUT / "runs"


def fetch(arguments: Arguments) -> None:
    """Copy a file or folder of the host's checkout into the folder in which just was called."""
    path = arguments.text("any_file")
    if not path:
        raise UsageError("any_file: say which; for example any_file=runs/latest/summary.json")
    copy(find_hosts()[0], path, caller_folder())


def fetch_run(arguments: Arguments) -> None:
    """Copy a run into the local runs folder, where transformerlm-infer finds it."""
    run = arguments.text("run", "latest")
    check_run_name(run)
    host = find_hosts()[0]
    run = host.ask("run_name", run).rstrip("\n")
    RUNS.mkdir(exist_ok=True)
    copy(host, f"runs/{run}", RUNS)
    words = ["--set", shlex.quote(f"checkpoint.path=runs/{run}")]
    say(f"use it here: uv run transformerlm-infer --config config/resources/infer.toml {' '.join(words)}")


def list_runs(_arguments: Arguments) -> None:
    """Name the runs on the host."""
    find_hosts()[0].call("list_runs")


def copy(host: Host, path: str, target: Path) -> None:
    """Copy a path under the host's root into a local folder. Raises UsageError if it leads out of the root."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\n" in path:
        raise UsageError(f'"{path}" is no path inside REMOTE_ROOT; for example runs/latest/summary.json')
    found, has_rsync = host.ask("locate", str(relative)).rstrip("\n").rsplit("\n", 1)
    try:
        if has_rsync == "rsync" and has_local_rsync():
            host.rsync(found, target)
        else:
            host.unpack(found, target)
    except RemoteError as error:
        raise RemoteError(
            error.exit_code, f"{relative} did not come whole; the same recipe again goes on where it stopped. {error}"
        ) from error
    say(f"{relative} -> {target / relative.name}")


def has_local_rsync() -> bool:
    """Tell whether there is an rsync here that sends paths as data (macOS's own does not)."""
    try:
        usage = subprocess.run(["rsync", "--help"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    except FileNotFoundError:
        return False
    return "--secluded-args" in usage or "--protect-args" in usage


def find_unfetched(host: Host) -> list[str]:
    """Return the names of runs whose files on the host are not all here, as they are there."""
    if not has_local_rsync():
        raise UsageError("rsync is needed here, to see whether all runs were fetched; install it, or pass force=1")
    found = host.ask("locate_runs").rstrip("\n")
    if not found:
        return []
    RUNS.mkdir(exist_ok=True)
    listing = host.rsync(f"{found}/", RUNS, "--dry-run", "--out-format=%n", "--exclude=/latest", "--exclude=/.jobs")
    files = (line for line in listing.splitlines() if not line.endswith("/"))
    return sorted({file.partition("/")[0] for file in files})


def fetch_all_runs(host: Host) -> None:
    """Copy everything in the host's runs folder, logs of jobs included."""
    found = host.ask("locate_runs").rstrip("\n")
    if found:
        RUNS.mkdir(exist_ok=True)
        host.rsync(f"{found}/", RUNS)
