"""What the device could do at best, and how much of it a run uses: dense peaks, MFU, memory."""

import resource
import sys
from dataclasses import dataclass

import torch

from profiling.memory import peaks

# Dense operations per second (not the doubled figures for sparse matrices) from the makers' data sheets:
# bfloat16 and float16 with float32 sums, TF32, float32. Of two names that fit, the longer one counts.
DEVICE_PEAKS: dict[str, tuple[float, float, float]] = {
    "Tesla T4": (65e12, 8.1e12, 8.1e12),
    "V100": (125e12, 15.7e12, 15.7e12),
    "NVIDIA A10": (125e12, 62.5e12, 31.2e12),
    "A100": (312e12, 156e12, 19.5e12),
    "NVIDIA L4": (121e12, 60e12, 30.3e12),
    "L40S": (362e12, 183e12, 91.6e12),
    "H100": (989e12, 494e12, 67e12),
    "H100 PCIe": (756e12, 378e12, 51e12),
    "H100 NVL": (835e12, 417e12, 60e12),
    "GH200": (989e12, 494e12, 67e12),
    "H200": (989e12, 494e12, 67e12),
    "H200 NVL": (835e12, 417e12, 60e12),
    "B200": (2250e12, 1125e12, 75e12),
    "RTX 3090": (71e12, 35.6e12, 35.6e12),
    "RTX 4090": (165e12, 82.6e12, 82.6e12),
    "RTX A6000": (154.8e12, 77.4e12, 38.7e12),
    "RTX 6000 Ada": (364e12, 182e12, 91.1e12),
    "MI300X": (1307e12, 653e12, 163e12),
}


def find_peak(name: str, dtype: torch.dtype, is_tf32: bool = False) -> float | None:
    """Return the dense peak of a device by its name [operations per second], None if it is not in the table.

    A device that lacks bfloat16 (V100, T4) has none for it.
    """
    words = name.replace("-", " ").split()
    fitting = [known for known in DEVICE_PEAKS if _holds_words(words, known.split())]
    if not fitting:
        return None
    known = max(fitting, key=len)
    if dtype == torch.bfloat16 and known in ("Tesla T4", "V100"):
        return None
    half, tf32, single = DEVICE_PEAKS[known]
    return half if dtype in (torch.bfloat16, torch.float16) else tf32 if is_tf32 else single


def _holds_words(words: list[str], wanted: list[str]) -> bool:
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words)))


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Turn a throughput into model FLOPs utilisation: the work the model needs, as a share of the devices' peak."""

    flops_per_weight: float | None
    """Operations of forward and backward per unit of weight (per token), without what is recomputed."""
    device_name: str
    num_devices: int
    dtype: torch.dtype
    peak_flops: float | None
    """Dense peak of one device [operations per second]; None if unknown."""

    @classmethod
    def of(
        cls, device: torch.device, num_devices: int, dtype: torch.dtype, flops_per_weight: float | None
    ) -> "Utilisation":
        """Look the device up."""
        if device.type != "cuda":
            return cls(flops_per_weight, device.type, num_devices, dtype, None)
        name = torch.cuda.get_device_name(device)
        is_tf32 = torch.get_float32_matmul_precision() != "highest"
        return cls(flops_per_weight, name, num_devices, dtype, find_peak(name, dtype, is_tf32))

    def mfu(self, weight_per_second: float) -> float | None:
        """Return the share of the peak in use [0, 1], None where the work or the peak is unknown."""
        if self.flops_per_weight is None or self.peak_flops is None:
            return None
        return self.flops_per_weight * weight_per_second / (self.peak_flops * self.num_devices)

    def describe(self, unit: str = "weight") -> str:
        """Return the formula with its figures, to be printed once."""
        dtype = str(self.dtype).removeprefix("torch.")
        if self.flops_per_weight is None:
            return f"MFU unknown: nobody said how many operations one of {unit} takes"
        work = f"{self.flops_per_weight / 1e6:.4g} MFLOP x {unit}/s"
        if self.peak_flops is None:
            return f"MFU = {work} / peak; the dense {dtype} peak of {self.device_name} is not known, so mfu is null"
        peak = f"{self.peak_flops / 1e12:.4g} TFLOP/s (dense {dtype} peak of {self.device_name})"
        return f"MFU = {work} / ({self.num_devices} x {peak})"


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory this process has held [MB]: tensors on a GPU, all of the process on a CPU."""
    if device.type == "cuda":
        return peaks().allocated_bytes / 1e6
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6
