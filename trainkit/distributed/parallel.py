"""Know one's place among the processes, and join them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

BackendName = Literal["auto", "gloo", "nccl"]
DeviceName = Literal["auto", "cpu", "cuda"]

CPU_FOLDER = Path("/sys/devices/system/cpu")
_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class World:
    """Say which of how many processes this one is, and the device it computes on."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes files and talks to the user."""
        return self.rank == 0


def is_started_by_torchrun() -> bool:
    """Tell whether the environment names this process's rank, as torchrun and our own launcher do."""
    return all(name in os.environ for name in _TORCHRUN_VARIABLES)


def world_from_environment(device: DeviceName) -> World:
    """Read this process's place from the variables that torchrun sets."""
    local_rank = int(os.environ["LOCAL_RANK"])
    return World(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_rank=local_rank,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=choose_device(device, local_rank),
    )


def choose_device(requested: DeviceName, local_rank: int = 0) -> torch.device:
    """Return the device of a local rank; "auto" takes a GPU where there is one.

    Raises ValueError when a GPU was asked for and is not there.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {requested!r}: use auto, cpu or cuda")
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA device: use auto or cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this host has no GPU of its own, there are {torch.cuda.device_count()}: "
            "start at most one process per GPU, or use device cpu"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def process_group(world: World, backend: BackendName = "auto") -> Iterator[None]:
    """Join the other processes for the duration of the block, and leave them whatever happens inside."""
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    else:
        torch.set_num_threads(max(1, count_cores() // world.local_size))
    name = backend if backend != "auto" else "nccl" if world.device.type == "cuda" else "gloo"
    if name == "nccl" and world.device.type != "cuda":
        raise ValueError("the nccl backend needs one GPU per process: use backend auto or gloo")
    device_id = world.device if name == "nccl" else None
    dist.init_process_group(name, rank=world.rank, world_size=world.size, device_id=device_id)
    try:
        yield
    finally:
        dist.destroy_process_group()


def count_cores() -> int:
    """Count the physical cores this process may run on, which in a container are fewer than the machine's.

    Two hardware threads of one core share its arithmetic: a second one would only wait for the first.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_name_core(cpu) for cpu in os.sched_getaffinity(0)})


def _name_core(cpu: int) -> str:
    """Return the same text for all hardware threads of a core."""
    try:
        return (CPU_FOLDER / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
