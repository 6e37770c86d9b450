"""Take the micro-batches of one step from a source."""

import torch

from profiling.nvtx import nvtx_range
from trainkit.protocols import Batch, BatchSource
from trainkit.training.accumulate import count_rows, move_to


def take_batches(source: BatchSource, count: int, device: torch.device, step: int) -> tuple[list[Batch], list[str]]:
    """Return the next `count` micro-batches, on `device`, and where each came from.

    Raises ValueError naming the step if the source ends, or if the micro-batches differ in their number of rows.
    """
    batches, origins = [], []
    for _ in range(count):
        try:
            with nvtx_range("fetch"):
                batch = next(source)
        except StopIteration:
            raise ValueError(
                f"the training data ended in step {step}: give it more data, repeat it, or train for fewer steps"
            ) from None
        batches.append(move_to(batch, device))
        origins.append(source.origin())
    rows = {count_rows(batch) for batch in batches}
    if len(rows) > 1:
        raise ValueError(f"the micro-batches of step {step} have {sorted(rows)} rows: each must have the same")
    return batches, origins
