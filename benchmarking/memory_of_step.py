"""The most memory that tensors take during a step, on a GPU and on a CPU alike."""

import json
import tempfile
from pathlib import Path

import torch
from torch.profiler import profile

from benchmarking.training_contenders import Contender
from profiling.trace import make_profiler


def memory_of_step(contender: Contender, device: torch.device) -> int:
    """Train one step and return the most bytes held at once: weights, optimizer state, and what the step adds.

    What other contenders hold meanwhile does not count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        contender.run(1)
        return held_bytes(contender) + torch.cuda.max_memory_allocated(device) - before
    with make_profiler(has_memory=True) as profiler:
        contender.run(1)
    return held_bytes(contender) + highest_rise(profiler)


def held_bytes(contender: Contender) -> int:
    """Return the bytes of weights and optimizer state, which stay between steps."""
    states = [value for state in contender.optimizer.state.values() for value in state.values()]
    tensors = [*contender.model.parameters(), *(value for value in states if isinstance(value, torch.Tensor))]
    return sum(tensor.nbytes for tensor in tensors)


def highest_rise(profiler: profile) -> int:
    """Return how far the memory of tensors rose above where it was when the profile began [bytes]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    level = highest = 0
    for _, change in sorted(changes, key=lambda each: each[0]):
        level += change
        highest = max(highest, level)
    return highest
