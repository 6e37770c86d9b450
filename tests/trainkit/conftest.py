"""Make the workers importable in child processes, and run them as ranks that talk over gloo."""

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "checkpointing")]

# Ranks are forked from a process that imported torch once: a launch costs a fraction of a second instead of many.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["trainkit.trainer", "trainkit.distributed.launch", "torch._dynamo"])
multiprocessing.forkserver.ensure_running()  # it imports torch while pytest does, on another core

_DEADLINE_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def instant_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: no test pulls the plug, and a slow disk would take most of their time."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def spawn() -> Iterator[Callable[..., Any]]:
    """Start `function(*arguments)` in a process of its own and return the process."""
    started = []

    def start(function: Callable, *arguments: Any) -> Any:
        process = _FORKSERVER.Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.fixture
def run_ranks(spawn: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Run `function(world, *arguments)` on gloo ranks; return their values by rank, exceptions as exceptions."""
    from trainkit_workers import be_rank

    def run(function: Callable, world_size: int, *arguments: Any) -> list[Any]:
        port = free_port()
        pipes = [_FORKSERVER.Pipe(duplex=False) for _ in range(world_size)]
        for rank, (_, sender) in enumerate(pipes):
            environment = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": world_size,
                "LOCAL_WORLD_SIZE": os.cpu_count() or 1,  # one thread per rank: forked OpenMP pools do not work
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            spawn(be_rank, environment, sender, function, arguments)
        values = []
        for rank, (receiver, sender) in enumerate(pipes):
            sender.close()
            assert receiver.poll(_DEADLINE_S), f"rank {rank} of {function.__name__} hangs"
            values.append(pickle.loads(receiver.recv_bytes()))
        return values

    return run
