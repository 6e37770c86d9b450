"""Choose the number format of forward and backward by what the hardware can do."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMALLEST_LOSS_SCALE = 2.0**-10


class Precision:
    """Hold the autocast format and, for float16 only, the loss scaler.

    Parameters and optimizer state stay float32; only the arithmetic inside `autocast()` is narrower.
    """

    def __init__(self, requested: PrecisionName, device: torch.device):
        self.device = device
        self.dtype = choose_dtype(requested, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def is_scaled(self) -> bool:
        """Tell whether gradients carry a loss scale, so that an overflow means "lower the scale", not "stop"."""
        return self.scaler.is_enabled()

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the objective runs."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` (scaled where needed) to the parameters."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the loss scale out of the gradients; one that overflowed stays infinite."""
        if self.is_scaled:
            self.scaler.unscale_(optimizer)

    def end_step(self) -> None:
        """Lower the loss scale after an overflow, and raise it now and then."""
        self.scaler.update()

    def check_scale(self) -> None:
        """Raise FloatingPointError when the scale is so small that no gradient will ever fit. Waits for the device."""
        if self.is_scaled and self.scaler.get_scale() < _SMALLEST_LOSS_SCALE:
            raise FloatingPointError("float16 gradients keep overflowing: use bfloat16 or float32")


def choose_dtype(requested: PrecisionName, device: torch.device) -> torch.dtype:
    """Return the format to compute in; warn and fall back to float32 where the hardware lacks the one asked for.

    "auto" is bfloat16 on a GPU that computes in it and float32 elsewhere: on a CPU a narrower format has to be asked
    for, because only the newest ones gain from it.
    Raises ValueError for an unknown name.
    """
    if requested == "auto":
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_fast else torch.float32
    if requested not in _DTYPES:
        raise ValueError(f"unknown precision {requested!r}: use auto, float32, bfloat16 or float16")
    if requested != "float32" and not _is_supported(_DTYPES[requested], device):
        warnings.warn(f"this {device.type} does not compute in {requested}: training in float32 instead", stacklevel=2)
        return torch.float32
    return _DTYPES[requested]


def _is_supported(dtype: torch.dtype, device: torch.device) -> bool:
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and dtype == torch.bfloat16 and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    """Look for the instructions that make bfloat16 faster than float32; torch has no public question for it."""
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)
