"""GPU memory: what is used, what was the peak, and a history that pytorch.org/memory_viz can draw.

Without a GPU, and with a torch built without CUDA, every function answers False, "" or zeros and writes no file,
so that callers need not ask first. torch is imported on the first call, never by importing this module.
"""

import json
from dataclasses import dataclass
from pathlib import Path

MAX_HISTORY_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class MemoryPeaks:
    """The most memory in use at once since the last `reset_peaks` [bytes]."""

    allocated_bytes: int = 0
    """Held by tensors."""
    reserved_bytes: int = 0
    """Held by torch's allocator: tensors, and what it keeps for later ones."""


def has_cuda() -> bool:
    """Return whether there is GPU memory to look at."""
    import torch

    return torch.cuda.is_available()


def start_history(is_on: bool = True, max_entries: int = MAX_HISTORY_ENTRIES) -> bool:
    """Record every allocation and release from now on, the last `max_entries` of them, or stop recording.

    Returns whether there is a GPU to record on.
    """
    if not has_cuda():
        return False
    import torch

    if is_on:
        torch.cuda.memory._record_memory_history(max_entries=max_entries)
    else:
        torch.cuda.memory._record_memory_history(enabled=None)
    return True


def dump_snapshot(path: Path | str) -> bool:
    """Write what is allocated, and its history, to a file; returns whether it did: without a GPU there is none.

    path: ".pickle" for pytorch.org/memory_viz, ".json" to be read by anything else.
    Raises ValueError for any other suffix, with or without a GPU.
    """
    path = Path(path)
    if path.suffix not in (".pickle", ".json"):
        raise ValueError(f"{path}: a memory snapshot ends in .pickle (for pytorch.org/memory_viz) or .json")
    if not has_cuda():
        return False
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pickle":
        torch.cuda.memory._dump_snapshot(str(path))
    else:
        path.write_text(json.dumps(torch.cuda.memory._snapshot(), default=str), encoding="utf-8")
    return True


def summary() -> str:
    """Return torch's table of GPU memory, "" without a GPU."""
    if not has_cuda():
        return ""
    import torch

    return torch.cuda.memory_summary(abbreviated=True)


def peaks() -> MemoryPeaks:
    """Return the peaks since the last `reset_peaks`, zeros without a GPU."""
    if not has_cuda():
        return MemoryPeaks()
    import torch

    return MemoryPeaks(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())


def reset_peaks() -> bool:
    """Forget the peaks; return whether there is a GPU that has some."""
    if not has_cuda():
        return False
    import torch

    torch.cuda.reset_peak_memory_stats()
    return True
