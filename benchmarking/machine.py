"""The machine that computes: its name, and how fast it moves bytes and multiplies, measured in the same run."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainkit.environment import processor_name

READ_BYTES = 256 * 2**20
MATRIX_WIDTH = {"cpu": 1536, "cuda": 8192}
DATA_SHEET = {  # bytes per second, and dense bfloat16 operations per second
    "A100": (2.04e12, 312e12),
    "H100": (3.35e12, 989e12),
    "H200": (4.8e12, 989e12),
    "L4": (0.3e12, 121e12),
    "RTX 4090": (1.01e12, 165e12),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What bounds a computation on it."""

    name: str
    bytes_per_second: float
    flops_per_second: float
    is_measured: bool
    """True if both were measured just now, False if they are the data sheet's."""

    def describe_peaks(self) -> str:
        """Return both peaks and where they come from."""
        origin = "measured now" if self.is_measured else "data sheet"
        return f"{self.bytes_per_second / 1e9:.1f} GB/s read, {self.flops_per_second / 1e9:.0f} GFLOP/s ({origin})"


def inspect_machine(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Name the device and find its peaks: of a GPU we know, from its data sheet, otherwise by measuring."""
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
        known = next((peaks for name, peaks in DATA_SHEET.items() if name in gpu), None)
        if known is not None and dtype == torch.bfloat16:
            return Machine(f"{gpu}, torch {torch.__version__}", *known, is_measured=False)
        return Machine(f"{gpu}, torch {torch.__version__}", *measure_peaks(device, dtype), is_measured=True)
    name = f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return Machine(name, *measure_peaks(device, dtype), is_measured=True)


def measure_peaks(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Measure bytes read per second by a matrix-vector product, and operations per second of a square product."""
    width = 4096
    matrix = torch.ones((READ_BYTES // 4 // width, width), dtype=torch.float32, device=device)
    vector = torch.ones(width, device=device)
    read = READ_BYTES / best_seconds(lambda: matrix @ vector, device, repeats=8)
    width = MATRIX_WIDTH[device.type]
    square = torch.randn((width, width), device=device).to(dtype)
    return read, 2 * width**3 / best_seconds(lambda: square @ square, device, repeats=4)


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
