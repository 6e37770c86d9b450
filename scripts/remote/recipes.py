"""The recipes that work on the host itself; files.py copies, pods.py rents."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from pathlib import Path

import environment
import source
from arguments import Arguments, UsageError
from hosts import CHECKOUT, CONNECTION_LOST, Host, RemoteError, find_hosts

DEFAULT_CONFIG = "config/resources/train.toml"
DEFAULT_COMMAND = "uv run transformerlm-bench-infer --config config/resources/bench_infer.toml"
CMD_INFER = "CMD_INFER"
ATTACH = "tmux -u attach-session -t =transformerlm-train"
START_WAIT_S = "60"
STOP_GRACE_S = 120
MASTER_PORT = 29500
_MASTER = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*")
RETRY_S = float(os.environ.get("REMOTE_RETRY_S") or 15)
PATIENCE_S = float(os.environ.get("REMOTE_PATIENCE_S") or 900)
"""How long a lost connection is tried again while waiting for a job."""


def say(text: str) -> None:
    """Tell the user something that is no result."""
    print(text, file=sys.stderr, flush=True)


def bootstrap(arguments: Arguments) -> None:
    """Install the tools, send the source, make the folders, install the packages."""
    force = str(int(arguments.flag("force")))
    for host in _hosts(arguments):
        # Not attached: a package manager that is cut off half-way leaves a mess, so it may finish.
        host.call("bootstrap_remote", script="bootstrap_remote.sh", is_attached=False)
        send_source(host, force)
        host.call("build_remote")


def send_source(host: Host, force: str = "0") -> None:
    """Bring the host's checkout to what is here, or to what REPO_URL holds."""
    url = os.environ.get("REPO_URL")
    if url:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise UsageError(
                "REPO_URL holds a name or key, which processes on the host would show; use ssh with agent forwarding, "
                "or unset REPO_URL to send the local checkout"
            )
        if url.startswith("-"):
            raise UsageError(f'REPO_URL: "{url}" is no address')
        host.call("fetch_source", url, os.environ.get("REPO_REF") or "HEAD", force)
        return
    commit = source.make_snapshot()
    host.push(commit, host.ask("host_root").rstrip("\n"), source.BRANCH)
    host.call("update_source", commit, force)


def build(arguments: Arguments) -> None:
    """Install what uv.lock pins."""
    for host in _hosts(arguments):
        host.call("build_remote")


def data(arguments: Arguments) -> None:
    """Fetch tokenizer files and prepared tokens into the host's data folder."""
    for host in _hosts(arguments):
        host.with_variables(environment.DATA_VARIABLES).call("fetch_data", arguments.text("dest", "data/fetched"))


def sync_env(arguments: Arguments) -> None:
    """Send the files with credentials."""
    for host in _hosts(arguments):
        environment.send(host)


def train(arguments: Arguments) -> None:
    """Start training in tmux, on one host or on several that work together."""
    check_job(arguments)
    config = find_config(arguments.text("config", DEFAULT_CONFIG))
    start(arguments, _hosts(arguments), config, [*arguments.split("extra"), *arguments.words])


def resume_train(arguments: Arguments) -> None:
    """Continue a run from its newest checkpoint."""
    check_job(arguments)
    hosts = _hosts(arguments)
    run = arguments.text("run", "latest")
    check_run_name(run)
    run = hosts[0].ask("run_name", run).rstrip("\n")
    words = ["--set", f"checkpointing.resume_from=runs/{run}", *arguments.split("extra"), *arguments.words]
    start(arguments, hosts, f"runs/{run}/config.toml", words)


def start(arguments: Arguments, hosts: list[Host], config: str, words: list[str]) -> None:
    """Start one job on all hosts, and show how it begins."""
    job = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    gpus = arguments.text("gpus")
    master = _find_master(arguments, hosts) if len(hosts) > 1 else ""
    _tell_if_source_differs(hosts[0])
    force = str(int(arguments.flag("force")))
    started: list[Host] = []
    try:
        for rank, host in enumerate(hosts):
            place = (str(len(hosts)), str(rank), gpus, master)
            host.call("run_train_remote", job, force, *place, config, *words, script="run_train_remote.sh")
            started.append(host)
    except RemoteError:
        stop(started, "10")  # they would wait for the one that did not start
        raise
    hosts[0].call("await_start", job, START_WAIT_S)


def check_job(arguments: Arguments) -> None:
    """Raise UsageError if an option of a job cannot be right: better before minutes of installation, or of rent."""
    arguments.split("extra")
    arguments.flag("force")
    gpus = arguments.text("gpus")
    if gpus and not (gpus == "auto" or (gpus.isascii() and gpus.isdigit())):
        raise UsageError(f'gpus: "{gpus}" is not a number of processes per host; for example gpus=8, or gpus=auto')
    master = arguments.text("master")
    if master and not _MASTER.fullmatch(master):
        raise UsageError(f'master: "{master}" is no address of a host; for example master=10.0.0.1')
    port = arguments.count("port", MASTER_PORT)
    if not 0 < int(port) < 65536:
        raise UsageError(f"port: {port} is no port, which is from 1 to 65535; for example port={MASTER_PORT}")


def _find_master(arguments: Arguments, hosts: list[Host]) -> str:
    """Return address:port at which the other nodes find the first."""
    address = arguments.text("master") or hosts[0].ask("own_address").strip()
    if not _MASTER.fullmatch(address):
        raise UsageError('master: the first node\'s own address is not known; say master="10.0.0.1"')
    return f"{address}:{arguments.count('port', MASTER_PORT)}"


def _tell_if_source_differs(host: Host) -> None:
    if not os.environ.get("REPO_URL") and source.tree_of(source.make_snapshot()) != host.ask("source_tree").strip():
        say("note: the host has another source than this checkout; just bootstrap-remote sends it")


def find_config(path: str) -> str:
    """Turn a local path, seen from where just was called, into the path inside the checkout; others stay."""
    local = (caller_folder() / path).resolve()
    if local.is_file() and CHECKOUT in local.parents:
        return str(local.relative_to(CHECKOUT))
    return path


def caller_folder() -> Path:
    """Return the folder in which just was called."""
    return Path(os.environ.get("REMOTE_CALLER") or os.getcwd())


def check_run_name(run: str) -> None:
    """Refuse what is not the name of one folder."""
    if not run or "/" in run or run in (".", ".."):
        raise UsageError(f'run: "{run}" is no name of a run; just list-runs shows those there are')


def infer(arguments: Arguments) -> None:
    """Run a command on the host, its words kept as they are."""
    default = os.environ.get(CMD_INFER) or DEFAULT_COMMAND
    words = [*arguments.split("command", default), *arguments.split("args"), *arguments.words]
    if not words:
        raise UsageError('command: there is nothing to run; for example command="uv run transformerlm-infer --help"')
    _hosts(arguments)[0].call("run_infer_remote", *words, script="run_infer_remote.sh")


def nvitop(arguments: Arguments) -> None:
    """Show the GPUs: live on a terminal, once otherwise."""
    host = _hosts(arguments)[0]
    if sys.stdin.isatty() and sys.stdout.isatty() and not arguments.words:
        host.open_terminal("nvitop")
    else:
        host.call("nvitop_once", *arguments.words)


def attach_train(arguments: Arguments) -> None:
    """Show the job's terminal."""
    host = _hosts(arguments)[0]
    host.call("need_training")
    host.open_terminal(ATTACH)


def kill_train(arguments: Arguments) -> None:
    """Ask the job to save and end; insist after a while."""
    if not stop(_hosts(arguments), arguments.count("grace", STOP_GRACE_S)):
        say("no training is running")


def stop(hosts: list[Host], grace_s: str) -> bool:
    """Ask all hosts first, since ranks end together, then wait for each; returns whether anything was running."""
    jobs = [(host, host.ask("ask_to_stop").strip()) for host in hosts]
    for host, job in jobs:
        if job:
            host.call("await_stop", job, grace_s)
    return any(job for _, job in jobs)


def logs_train(arguments: Arguments) -> None:
    """Show the newest job's log, and follow it while it runs."""
    follow = str(int(arguments.flag("follow", default=True)))
    _hosts(arguments)[0].call("logs_train", arguments.count("lines", 50), follow)


def status_train(arguments: Arguments) -> None:
    """Say how the newest job is doing."""
    for host in _hosts(arguments):
        host.call("status_train")


def wait_train(arguments: Arguments) -> None:
    """Wait for the job and end with its exit code."""
    for host in _hosts(arguments):
        wait_for(host, arguments.number("every", 2))


def wait_for(host: Host, every_s: str) -> None:
    """Wait for a host's job, through lost connections too; raises RemoteError with its exit code, if not 0."""
    lost_at = None
    while True:
        began = time.monotonic()
        try:
            return host.call("wait_train", every_s)
        except RemoteError as error:
            if error.exit_code != CONNECTION_LOST:
                raise
            now = time.monotonic()
            if lost_at is None or now - began > RETRY_S:  # it was there meanwhile
                lost_at = now
            if now - lost_at >= PATIENCE_S:
                raise
        say(f"{host.address}: no connection; trying again in {RETRY_S:g} s")
        time.sleep(RETRY_S)


def auto_train(arguments: Arguments) -> None:
    """Do everything from an empty host to a running job."""
    find_config(arguments.text("config", DEFAULT_CONFIG))
    check_job(arguments)
    say("[1/4] tools, source, packages")
    bootstrap(arguments)
    say("[2/4] data")
    data(arguments)
    say("[3/4] credentials")
    if environment.find_files():
        sync_env(arguments)
    else:
        say("env/wandb.env is not there: nothing to send")
    say("[4/4] training")
    train(arguments)


def _hosts(arguments: Arguments) -> list[Host]:
    return find_hosts(arguments.text("nodes"))
