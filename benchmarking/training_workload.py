"""What every contender of the training benchmark is given: a shape, a batch, the optimizer, and the same tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.protocols import Batch
from trainkit.training.optim import AdamWSettings
from transformerlm.models.shape import ModelShape

GPT2_VOCABULARY = 50257  # padded to 50304
CLIP_NORM = 1.0
LEARNING_RATE = 1e-4
ADAMW = AdamWSettings()


@dataclass(frozen=True, slots=True)
class Size:
    """A named size: the shape, and how much of it makes a step."""

    shape: ModelShape
    batch_size: int


SIZES = {
    "tiny": Size(ModelShape(4096, 256, 256, 6, 8, 8, 688), 8),
    "124M": Size(ModelShape(GPT2_VOCABULARY, 1024, 768, 12, 12, 12, 2048, tie_embeddings=True), 32),
    "350M": Size(ModelShape(GPT2_VOCABULARY, 1024, 1024, 24, 16, 16, 2752, tie_embeddings=True), 16),
    "1B": Size(ModelShape(GPT2_VOCABULARY, 2048, 2048, 16, 16, 16, 7168, tie_embeddings=True), 8),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One training job."""

    shape: ModelShape
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    """Of the matrix products; weights and optimizer state are float32."""
    seed: int = 0

    @property
    def tokens_per_step(self) -> int:
        """Targets of one step; a diffusion model counts every position, as its loss does."""
        return self.batch_size * self.shape.context_length

    def autocast(self) -> torch.autocast:
        """Return the context that forward passes run in."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def build_adamw(self, model: nn.Module) -> torch.optim.AdamW:
        """Return the optimizer as trainkit would build it: fused, matrices decayed, tables and vectors not."""
        tables = {part.weight for part in model.modules() if isinstance(part, nn.Embedding)}
        parameters = list(model.parameters())
        decayed = [each for each in parameters if each.ndim >= 2 and each not in tables]
        others = [each for each in parameters if each.ndim < 2 or each in tables]
        groups = [
            {"params": decayed, "weight_decay": ADAMW.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=ADAMW.betas, eps=ADAMW.eps, fused=True)


def make_workload(size: Size, device: torch.device, dtype: torch.dtype, **changes: Any) -> Workload:
    """Return the workload of a size; changes: batch_size, context_length, vocab_size, seed; None leaves the size's."""
    given = {name: value for name, value in changes.items() if value is not None}
    batch_size, seed = given.pop("batch_size", size.batch_size), given.pop("seed", 0)
    return Workload(replace(size.shape, **given), batch_size, device, dtype, seed)


class RandomRows(Iterator[Batch]):
    """An endless source of rows of random tokens, the mask token never among them. Its state is its position."""

    def __init__(self, workload: Workload, row_length: int) -> None:
        self.workload, self.row_length = workload, row_length
        self.position = 0

    def __next__(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.workload.seed + self.position)
        self.position += 1
        shape = (self.workload.batch_size, self.row_length)
        return {"tokens": torch.randint(self.workload.shape.vocab_size - 1, shape, generator=generator)}

    def origin(self) -> str:
        """Say where the last batch came from."""
        return f"random batch {self.position}"

    def state_dict(self) -> dict[str, int]:
        """Return the position."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a position."""
        self.position = state["position"]
