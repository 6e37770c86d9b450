"""The cells of the parity matrix, many in one process group, and a small model that can be sharded."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import _muon
from trainkit_workers import LENGTH, VOCABULARY, WIDTH, ToySource, make_settings, toy_objective

from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World
from trainkit.settings import Task
from trainkit.trainer import Trainer
from trainkit.training.optim import AdamWSettings, GroupSettings, MuonSettings

ROWS = 16  # four ranks of four micro-batches of one row
OPTIMIZERS = {
    "adamw": AdamWSettings(weight_decay=0.1),
    "muon": MuonSettings(
        hidden=GroupSettings(weight_decay=0.1, learning_rate_scale=2.0), head=GroupSettings(weight_decay=0.05)
    ),
}


class Layer(nn.Module):
    """Widen to a number of features that no number of ranks divides, and come back."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(dropout)
        self.up, self.down = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.dropout(torch.tanh(self.up(self.norm(x)))))


class DeepModel(nn.Module):
    """Every role: a table tied to the head, hidden matrices in two blocks, norms and biases."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList([Layer(dropout), Layer(dropout)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, noise: Tensor) -> Tensor:
        x = self.embedding(ids) + noise
        assert x.shape[-2:] == (LENGTH, WIDTH)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to train the same three steps."""

    accumulation: int = 1
    strategy: str = "ddp"
    optimizer: str = "adamw"
    is_compiled: bool = False
    recomputes: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """What three steps leave behind, whole."""

    norms: list[float]
    gradients: list[dict[str, Tensor]]
    """Of each step, after clipping."""
    weights: dict[str, Tensor]


class KeepGradients(Callback):
    """Keep gradients and their norms: AdamW and Muon would hide a wrong scale, and clipping too."""

    runs_on_every_rank = True

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self.norms: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_gradients_ready(self, step: int, grad_norm: Tensor) -> None:
        self.norms.append(grad_norm.item())
        self.gradients.append({name: whole(p.grad) for name, p in self.model.named_parameters()})


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def make_deep_trainer(world: World, cell: Cell, **parts: object) -> Trainer:
    """Build the trainer of a cell; every rank but the first begins with wrong weights, which must not matter."""
    torch.manual_seed(world.rank)
    model = DeepModel(parts.pop("dropout", 0.0))
    changes = parts.pop("changes", {})
    settings = make_settings(
        grad_accum_steps=cell.accumulation,
        optimizer=OPTIMIZERS[cell.optimizer],
        compile=cell.is_compiled,
        strategy=cell.strategy,
        recompute_blocks=cell.recomputes,
        **changes,
    )
    source = ToySource(world, cell.accumulation, ROWS)
    return Trainer(Task(model, toy_objective, source, blocks=model.layers), settings, world, **parts)


def train_cell(world: World, cell: Cell) -> Trained:
    """Train three steps as the cell says, with Muon's arithmetic in float32."""
    keep = KeepGradients()
    trainer = make_deep_trainer(world, cell, callbacks=[keep])
    keep.model = trainer.model
    with muon_in_float32():
        trainer.fit()
    weights = {name: whole(parameter) for name, parameter in trainer.model.named_parameters()}
    return Trained(keep.norms, keep.gradients, weights)


def train_cells(world: World, cells: list[Cell]) -> list[Trained]:
    return [train_cell(world, cell) for cell in cells]


@contextmanager
def muon_in_float32() -> Iterator[None]:
    """Let torch's own Muon orthogonalise in float32.

    In bfloat16 two gradients that differ in the last bit may round to neighbouring values, and a tolerance that
    forgives this would forgive mistakes.
    """
    words = types.ModuleType("torch")
    words.__dict__.update(torch.__dict__)
    words.bfloat16 = torch.float32
    with (
        patch.object(_muon, "torch", words),
        patch.object(torch.Tensor, "bfloat16", lambda t: t.to(torch.float32, copy=True)),
    ):
        yield
