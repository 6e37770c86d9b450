"""Two hosts, each a network namespace with its own address and torchrun, train as one; one of them dies and returns.

The hosts share nothing but a cable (a veth pair) and a folder, as hosts of a cluster share a file system.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from multi_node_worker import SAVE_EVERY, train_on

WORKER = Path(__file__).parents[1] / "multi_node_worker.py"
MAX_STEPS, PAUSE_S, DEADLINE_S = 60, 0.05, 150


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Host:
    """A network namespace, and what was started in it."""

    name: str
    address: str
    cable: str
    log: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    def start_torchrun(self, rendezvous: str, folder: Path) -> subprocess.Popen:
        """Start one process of a two-host job, as anybody would."""
        is_first = int(rendezvous.startswith(self.address))
        command = f"""
            {sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --max-restarts 3
            --rdzv-backend c10d --rdzv-endpoint {rendezvous} --rdzv-id test --local-addr {self.address}
            --rdzv-conf is_host={is_first},keep_alive_interval=1,keep_alive_max_attempt=3
            {WORKER} {folder} {MAX_STEPS} {PAUSE_S}"""
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": self.cable, "OMP_NUM_THREADS": "1"}
        # Without this a survivor does not tell a host that returns where the ranks meet, and both wait for ever.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        environment["PYTHONPATH"] = os.pathsep.join([str(WORKER.parents[2]), environment.get("PYTHONPATH", "")])
        with self.log.open("a") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command.split()], env=environment, stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    def lose_power(self) -> None:
        """Kill everything that runs here, with no chance to say goodbye."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        for process in self.started:
            process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Lay a cable between two new network namespaces; skip where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    number = os.getpid()
    pair = [
        Host(f"trainkit{number}{side}", f"10.77.0.{index}", f"tk{number}{side}", tmp_path / f"host_{side}.log")
        for index, side in ((1, "a"), (2, "b"))
    ]
    try:
        for host in pair:
            ip("netns", "add", host.name)
        ip("link", "add", pair[0].cable, "type", "veth", "peer", "name", pair[1].cable)
    except subprocess.CalledProcessError as error:
        remove(pair)
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    for host in pair:
        ip("link", "set", host.cable, "netns", host.name)
        ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.cable)
        for device in ("lo", host.cable):
            ip("-n", host.name, "link", "set", device, "up")
    yield pair
    for host in pair:
        host.lose_power()
    remove(pair)


def remove(hosts: list[Host]) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)


def wait_until(condition, hosts: list[Host], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        logs = "\n".join(f"--- {host.name}\n{host.log.read_text()[-3000:]}" for host in hosts)
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE_S} s\n{logs}"
        time.sleep(0.1)


@pytest.mark.long
def test_a_host_dies_and_returns_and_the_run_continues_from_its_last_checkpoint(hosts, tmp_path, run_ranks):
    folder = tmp_path / "shared"
    folder.mkdir()
    first, second = hosts
    rendezvous = f"{first.address}:29400"
    survivor = first.start_torchrun(rendezvous, folder)
    second.start_torchrun(rendezvous, folder)
    wait_until((folder / "checkpoints" / f"step_{2 * SAVE_EVERY:08d}").exists, hosts, "the second checkpoint")
    second.lose_power()
    returned = second.start_torchrun(rendezvous, folder)
    wait_until(lambda: None not in (survivor.poll(), returned.poll()), hosts, "the end of the run")
    assert (survivor.returncode, returned.returncode) == (0, 0), first.log.read_text() + second.log.read_text()

    for rank in (0, 1):
        starts = [line.split(" ", 1) for line in (folder / f"starts_{rank}").read_text().splitlines()]
        assert starts[0] == ["0", "of 2 ranks"]
        assert len(starts) == 2, starts
        step, world = starts[1]
        assert 2 * SAVE_EVERY <= int(step) < MAX_STEPS
        assert (int(step) % SAVE_EVERY, world) == (0, "of 2 ranks")

    whole = tmp_path / "whole"
    whole.mkdir()
    run_ranks(train_on, 2, str(whole), MAX_STEPS, 0.0)
    for rank in (0, 1):
        found, expected = (torch.load(place / f"weights_{rank}.pt") for place in (folder, whole))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
