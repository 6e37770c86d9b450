"""How many CPU threads a pass through the network is worth.

Threads have to meet after every operation. That takes longer than a small operation itself: one token of a network of a
million parameters is done sooner by one thread than by two.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from transformerlm.models.transformer import TransformerLM

FLOPS_PER_THREAD = 2.4e7
"""Of one pass. Below that another thread costs more time than it saves (docs/performance.md, "Generation")."""


class PassThreads:
    """Lend each pass of one model as many threads as it is worth, on a CPU."""

    def __init__(self, model: TransformerLM) -> None:
        self.available = torch.get_num_threads() if model.embedding.weight.device.type == "cpu" else 1
        self.flops_per_position = model.flops_per_token(1, is_causal=True, is_training=False)

    def worthwhile(self, positions: int) -> int:
        """Return how many threads a pass over so many positions should use."""
        return max(1, min(self.available, int(positions * self.flops_per_position / FLOPS_PER_THREAD)))

    @contextmanager
    def lent_to(self, positions: int) -> Iterator[None]:
        """Compute with so many threads inside the block."""
        wanted = self.worthwhile(positions)
        if wanted == self.available:
            yield
            return
        torch.set_num_threads(wanted)
        try:
            yield
        finally:
            torch.set_num_threads(self.available)
