"""Rent, find, price and give back machines through the `prime` command line (pip install prime; prime login).

All of this runs here: the provider's key never reaches a pod.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import files
import recipes
from arguments import Arguments, UsageError
from hosts import CHECKOUT, CONNECTION_LOST, DEFAULT_HOST, DEFAULT_ROOT, POD_CONFIG, Host, RemoteError, make_host
from recipes import say

KNOWN_HOSTS = CHECKOUT / "env" / "known_hosts"
PRIME_SETTINGS = Path.home() / ".prime" / "config.json"
IMAGE = "ubuntu_22_cuda_12"
POLL_S = float(os.environ.get("REMOTE_RETRY_S") or 10)
_NODE = re.compile(r"(?:ssh\s+)?(?:(?P<user>\w[\w.-]*)@)?(?P<address>[\w:][\w.:-]*?)(?:\s+-p\s+(?P<port>\d+))?")


def pod_up(arguments: Arguments) -> None:
    """Show what the cheapest fitting machine costs, ask, and rent it."""
    if arguments.text("disk"):
        arguments.count("disk", 200)
    offer = _choose_offer(arguments)
    name = arguments.text("name", f"transformerlm-{time.strftime('%m%d-%H%M')}")
    _confirm(arguments, f"Rent {_describe(offer)} as {name}?")
    words = ["pods", "create", "--id", offer["id"], "--name", name, "--image", arguments.text("image", IMAGE)]
    sizes = {"--disk-size": arguments.text("disk"), "--vcpus": offer["vcpus"], "--memory": offer["memory_gb"]}
    sizes["--disk-size"] = sizes["--disk-size"] or offer["disk_gb"].rstrip("+")
    for option, size in sizes.items():
        if str(size).isdigit():  # what is left out, prime asks for
            words += [option, str(size)]
    output = _prime(*words, "--yes")
    created = re.search(r"created pod (\S+)", output)
    if not created:
        raise RemoteError(1, f"prime does not say that it created a pod:\n{output}")
    say(f"pod {created[1]}: {offer['price_per_hour']} per hour from now on, until just pod-down pod={created[1]}")
    say(f"next: just pod-config pod={created[1]} wait=600, then just auto-train")


def _choose_offer(arguments: Arguments) -> dict:
    """Return the cheapest machine in stock, or the one whose id is given; shows the cheapest few."""
    words = ["availability", "list", "--no-group-similar"]
    for option, name in (("--gpu-type", "gpu_type"), ("--regions", "region")):
        if arguments.text(name):
            words += [option, arguments.text(name)]
    offers = _ask_prime(*words, "--gpu-count", arguments.count("gpus", 1))["gpu_resources"]
    wanted = arguments.text("id")
    if wanted:
        offers = [offer for offer in offers if wanted in (offer["id"], offer["cloud_id"])]
    else:
        with_spot = arguments.flag("spot")
        offers = [o for o in offers if (with_spot or not o["is_spot"]) and o["stock_status"].lower() in IN_STOCK]
    if not offers:
        raise UsageError(
            "no such machine is offered now; try another gpu_type= (prime availability gpu-types lists them), gpus=, "
            "region=, or spot=1 for machines that may be taken away"
        )
    offers.sort(key=lambda offer: offer["price_value"])
    for offer in offers[:5]:
        print(f"{offer['id']}  {_describe(offer)}")
    return offers[0]


IN_STOCK = ("available", "high", "medium", "low")


def _describe(offer: dict) -> str:
    spot = ", spot: may be taken away" if offer["is_spot"] and "spot" not in offer["gpu_type"].lower() else ""
    return (
        f"{offer['gpu_count']} x {offer['gpu_type']} at {offer['price_per_hour']} per hour "
        f"({offer['provider']}, {offer['location']}, stock {offer['stock_status'].lower()}{spot})"
    )


def pod_config(arguments: Arguments) -> None:
    """Write env/ssh_config, in which the pod's first node is called prime-node."""
    pod = _choose_pod(arguments)
    deadline = time.monotonic() + float(arguments.number("wait", 0))
    while True:
        status = _status(pod)
        if status["status"] == "ACTIVE" and status["ssh"] != "N/A":
            break
        if status.get("installation_error"):
            raise RemoteError(1, f"pod {pod} failed: {status['installation_error']}")
        if time.monotonic() >= deadline:
            raise RemoteError(1, f"pod {pod} is {status['status']}, not yet reachable; again, with patience: wait=600")
        say(f"pod {pod} is {status['status']}; waiting")
        time.sleep(POLL_S)
    nodes = write_ssh_config(pod, status["ssh"])
    print(f"pod {pod}: {status['gpu']}, {_price(status)}; {' '.join(nodes)} in {POD_CONFIG.relative_to(CHECKOUT)}")


def write_ssh_config(pod: str, addresses: str) -> list[str]:
    """Write the ssh configuration of a pod's nodes; returns their aliases. The user's own comes after it."""
    stanzas, aliases = [], []
    for index, text in enumerate(addresses.split(",")):
        node = _NODE.fullmatch(text.strip())
        if node is None:
            raise RemoteError(1, f"pod {pod} has an ssh address that this cannot read: {text!r}")
        aliases.append(f"{DEFAULT_HOST}-{index}")
        stanzas.append(
            f"Host {aliases[-1]}{f' {DEFAULT_HOST}' if index == 0 else ''}\n"
            f"  HostName {node['address']}\n  Port {node['port'] or 22}\n  User {node['user'] or 'root'}\n"
            f"{_key_lines()}"
            # Providers use addresses again: a host key belongs to a pod, not to an address.
            f"  HostKeyAlias {pod}-{index}\n  UserKnownHostsFile {_quote(KNOWN_HOSTS)}\n"
            "  StrictHostKeyChecking accept-new\n"
        )
    POD_CONFIG.parent.mkdir(exist_ok=True)
    partial = POD_CONFIG.with_name(f".{POD_CONFIG.name}.partial")
    partial.write_text("\n".join([*stanzas, "Match all\n  Include ~/.ssh/config\n"]), encoding="utf-8")
    partial.chmod(0o600)
    partial.replace(POD_CONFIG)
    return aliases


def _key_lines() -> str:
    """Return the lines that name the key which prime put on the pod, if that is known."""
    try:
        key = json.loads(PRIME_SETTINGS.read_text("utf-8")).get("ssh_key_path", "")
    except (FileNotFoundError, ValueError):
        return ""
    path = Path(key).expanduser()
    return f"  IdentityFile {_quote(path)}\n  IdentitiesOnly yes\n" if key and path.is_file() else ""


def _quote(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def pod_cost(_arguments: Arguments) -> None:
    """Say what each pod costs per hour and has cost since it was rented."""
    pods = _list_pods()
    if not pods:
        print("no pod is rented")
        return
    total = 0.0
    for pod in pods:
        status = _status(pod["id"])
        hours = _hours_since(status["created_at"])
        price = status.get("cost_per_hour")
        total += price or 0.0
        cost = f"about ${price * hours:.2f} so far" if price is not None else "cost not known"
        print(f"{pod['id']}  {pod['name']}  {status['gpu']}  {status['status']}")
        print(f"    {hours:.1f} h, {_price(status)}, {cost}")
    print(f"in all ${total:.2f} per hour")


def _price(status: dict) -> str:
    price = status.get("cost_per_hour")
    return "price not known" if price is None else f"${price:.2f} per hour"


def _hours_since(timestamp: str) -> float:
    """Read a UTC time: 2026-11-22 15:04:05, with T or a space, and whatever comes after the seconds."""
    return (time.time() - calendar.timegm(time.strptime(timestamp[:19].replace("T", " "), "%Y-%m-%d %H:%M:%S"))) / 3600


def pod_down(arguments: Arguments) -> None:
    """Give a pod back, unless a job runs on it or runs on it were not fetched."""
    pod = _choose_pod(arguments)
    if not arguments.flag("force"):
        hosts = _connect(pod, _status(pod)["ssh"])
        try:
            check_nothing_is_lost(hosts)
        except RemoteError as error:
            if error.exit_code == CONNECTION_LOST:
                message = f"pod {pod} cannot be asked what is on it. {error}. force=1 gives it back unseen"
                raise RemoteError(1, message) from error
            raise
    _confirm(arguments, f"Give back pod {pod} and all that is on it?")
    _terminate(pod)


def check_nothing_is_lost(hosts: list[Host]) -> None:
    """Raise RemoteError if a job runs on one of the hosts, or runs of the first are not all here."""
    for host in hosts:
        if host.ask("is_training").strip() == "yes":
            raise RemoteError(
                1,
                f"training is running on {host.address}: just wait-train waits for it, just kill-train ends it; "
                "force=1 gives the pod back all the same",
            )
    unfetched = files.find_unfetched(hosts[0])
    if unfetched:
        raise RemoteError(
            1,
            f"not fetched, or not as they are there now: {', '.join(unfetched)}. just fetch-run run=NAME brings one; "
            "force=1 gives the pod back all the same",
        )


def train_then_down(arguments: Arguments) -> None:
    """Train, wait for the end, bring all runs here, give the pod back; ends with the job's exit code."""
    recipes.check_job(arguments)
    every_s = arguments.number("every", 10)
    pod = _choose_pod(arguments)
    _confirm(arguments, f"Train on pod {pod}, then give it back?")
    hosts = _connect(pod, _status(pod)["ssh"])
    os.environ["PRIME_SSH_CONFIG"] = str(POD_CONFIG)
    arguments.options["nodes"] = " ".join(host.address for host in hosts)
    still_there = f"pod {pod} was NOT given back and goes on costing; see just pod-cost, just pod-down"
    exit_code = 0
    try:
        recipes.auto_train(arguments)
        try:
            recipes.wait_for(hosts[0], every_s)
        except RemoteError as error:
            if error.exit_code == CONNECTION_LOST or str(error):
                raise
            exit_code = error.exit_code
        files.fetch_all_runs(hosts[0])
        check_nothing_is_lost(hosts)
        _terminate(pod)
    except (RemoteError, UsageError, KeyboardInterrupt):
        say(still_there)
        raise
    if exit_code:
        raise RemoteError(exit_code, f"training ended with exit code {exit_code}; its runs and logs are in runs/")


def _connect(pod: str, addresses: str) -> list[Host]:
    """Return the pod's own nodes, whatever PRIME_HOST says."""
    if addresses == "N/A":
        raise RemoteError(1, f"pod {pod} has no address yet; pod-down force=1 gives it back unseen")
    root = os.environ.get("REMOTE_ROOT") or DEFAULT_ROOT
    return [make_host(alias, root, config=str(POD_CONFIG)) for alias in write_ssh_config(pod, addresses)]


def _terminate(pod: str) -> None:
    _prime("pods", "terminate", pod, "--yes")
    POD_CONFIG.unlink(missing_ok=True)
    print(f"pod {pod} was given back")


def _choose_pod(arguments: Arguments) -> str:
    """Return the pod that is named, or the only one."""
    pod = arguments.text("pod")
    if not pod:
        pods = _list_pods()
        if len(pods) != 1:
            listed = "; ".join(f"{p['id']} ({p['name']}, {p['gpu']})" for p in pods) or "none is rented: just pod-up"
            raise UsageError(f"pod: say which of them, pod=ID: {listed}")
        pod = pods[0]["id"]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", pod):
        raise UsageError(f'pod: "{pod}" is no id of a pod')
    return pod


def _list_pods() -> list[dict]:
    return _ask_prime("pods", "list")["pods"]


def _status(pod: str) -> dict:
    return _ask_prime("pods", "status", pod)


def _ask_prime(*words: str) -> dict:
    """Return what the provider's command line answers as JSON; it may say what failed in front of that, or instead."""
    output = _prime(*words, "--output", "json")
    complaint, brace, rest = output.partition("{")
    try:
        answer = json.loads(brace + rest)
    except ValueError:
        raise RemoteError(1, f"prime {' '.join(words[:2])}: {output.strip()}") from None
    if complaint.strip():
        say(f"prime: {complaint.strip()}")
    return answer


def _prime(*words: str) -> str:
    """Run the provider's command line and return what it prints."""
    try:
        done = subprocess.run(["prime", "--plain", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise UsageError("the command prime is missing; uv tool install prime, then prime login") from None
    if done.returncode:
        raise RemoteError(1, f"prime {' '.join(words[:2])}: {done.stdout.strip()}")
    return done.stdout


def _confirm(arguments: Arguments, question: str) -> None:
    """Ask on the terminal; without one, only yes=1 agrees."""
    if arguments.flag("yes"):
        say(f"{question} yes=1")
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on; yes=1 agrees")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")
