"""The machine that computes: its name, and how fast it moves bytes and multiplies, measured in the same run."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainkit.distributed.parallel import count_cores
from trainkit.environment import processor_name
from trainkit.hardware import find_peak
from transformerlm.models.linear import multiply

READ_BYTES = 256 * 2**20
MATRIX_WIDTH = {"cpu": 1536, "cuda": 8192}
BYTES_PER_SECOND = {  # from the makers' data sheets; their arithmetic is in trainkit/hardware.py
    "A100": 2.04e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "L4": 0.3e12,
    "RTX 4090": 1.01e12,
}
BUSY_LOAD = 0.5
"""Load per core, before anything is measured, above which figures are not to be trusted."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What bounds a computation on it."""

    name: str
    bytes_per_second: float
    flops_per_second: float
    is_measured: bool
    """True if both were measured just now, False if they are the data sheet's."""
    load: float
    """Processes that wanted to run during the last minute."""

    @property
    def origin(self) -> str:
        """Say where the peaks come from."""
        return "a matrix product, measured in this run" if self.is_measured else "data sheet, dense"

    def describe_peaks(self) -> str:
        """Return both peaks and where they come from."""
        origin = "measured now" if self.is_measured else "data sheet"
        return f"{self.bytes_per_second / 1e9:.1f} GB/s read, {self.flops_per_second / 1e9:.0f} GFLOP/s ({origin})"

    def describe_load(self) -> str:
        """Return the load, with a warning if other work keeps the machine busy."""
        is_busy = self.load > BUSY_LOAD * count_cores()
        return f"load {self.load:.2f}{'; BUSY: other work slows these figures down' if is_busy else ''}"


def inspect_machine(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Name the device and find its peaks: of a GPU we know, from its data sheet, otherwise by measuring."""
    load = os.getloadavg()[0]
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
        name = f"{gpu}, torch {torch.__version__}"
        bandwidth = next((found for known, found in BYTES_PER_SECOND.items() if known in gpu), None)
        flops = find_peak(gpu, dtype, torch.get_float32_matmul_precision() != "highest")
        if bandwidth is not None and flops is not None:
            return Machine(name, bandwidth, flops, is_measured=False, load=load)
        return Machine(name, *measure_peaks(device, dtype), is_measured=True, load=load)
    name = f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return Machine(name, *measure_peaks(device, dtype), is_measured=True, load=load)


def measure_peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Measure bytes read per second by a sum, and operations per second of the quickest square product there is.

    (torch's product of a matrix and a vector would not do: on a CPU it runs on one core.)
    """
    numbers = torch.ones(READ_BYTES // 4, device=device)
    read = READ_BYTES / best_seconds(numbers.sum, device, repeats=8)
    width = MATRIX_WIDTH[device.type]
    square = torch.randn((width, width), device=device).to(dtype)
    return read, 2 * width**3 / best_seconds(lambda: multiply(square, square), device, repeats=4)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the shortest of several timings, after one that does not count."""
    best = float("inf")
    for repeat in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        if repeat:
            best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish, so that the clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
