"""The gradient does not depend on how a global batch is cut over ranks and micro-batches, nor on who holds the model.

Every cell of the matrix (ranks x accumulation x strategy x optimizer x compiled or not) must give the gradients, their
norms and the weights after three steps of one process that has the whole batch, ragged as it is.
"""

from itertools import product

import pytest
import torch
from parity_workers import Cell, Trained, train_cell, train_cells
from torch.nn import functional
from trainkit_workers import (
    GLOBAL_ROWS,
    LENGTH,
    VOCABULARY,
    WIDTH,
    global_batch,
    make_model,
    make_settings,
    make_trainer,
    weights_of,
)

from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World
from trainkit.training.seeding import make_generator

PLAIN = [Cell(*cell) for cell in product([1, 2, 4], ["ddp", "fsdp"], ["adamw", "muon"])]
RECOMPUTED = [Cell(2, strategy, recomputes=True) for strategy in ("ddp", "fsdp")]


@pytest.fixture(scope="module")
def whole_batch() -> dict[str, Trained]:
    return {optimizer: train_cell(World(), Cell(optimizer=optimizer)) for optimizer in ("adamw", "muon")}


def assert_same_training(actual: Trained, expected: Trained, cell: Cell) -> None:
    assert actual.norms == pytest.approx(expected.norms, rel=1e-5), cell
    assert max(expected.norms) > 0.5, "the test should reach clipping"
    pairs = [*zip(actual.gradients, expected.gradients, strict=True), (actual.weights, expected.weights)]
    for number, (found, wanted) in enumerate(pairs):
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-5, atol=2e-6, msg=lambda text, at=(cell, number, name): f"{at}: {text}"
            )


def assert_parity(run_ranks, world_size: int, cells: list[Cell], whole_batch: dict[str, Trained]) -> None:
    for by_cell in run_ranks(train_cells, world_size, cells):
        if isinstance(by_cell, Exception):
            raise by_cell
        for cell, trained in zip(cells, by_cell, strict=True):
            assert_same_training(trained, whole_batch[cell.optimizer], cell)


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_cut_and_strategy_equals_one_process_with_the_whole_batch(world_size, run_ranks, whole_batch):
    assert_parity(run_ranks, world_size, PLAIN + RECOMPUTED, whole_batch)


@pytest.mark.long
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_parity_holds_under_compile(world_size, run_ranks, whole_batch):
    accumulation = 4 // world_size  # micro-batches of one size: what one world has compiled serves the next
    ways = product(["ddp", "fsdp"], ["adamw", "muon"])
    cells = [Cell(accumulation, strategy, optimizer, is_compiled=True) for strategy, optimizer in ways]
    cells.append(Cell(accumulation, "fsdp", is_compiled=True, recomputes=True))
    assert_parity(run_ranks, world_size, cells, whole_batch)


def train_by_hand(steps: int = 3) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train on whole batches with nothing but torch: mean loss, clip, AdamW written out (Loshchilov and Hutter)."""
    model = make_model()
    parameters = dict(model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    norms = []
    for step in range(1, steps + 1):
        batch = global_batch(step)
        noise = torch.randn(GLOBAL_ROWS, LENGTH, WIDTH, generator=make_generator(torch.device("cpu"), 0, "step", step))
        logits = model(batch["ids"][:, :-1], 0.1 * noise)
        targets = batch["ids"][:, 1:].masked_fill(~batch["valid"], -100)
        model.zero_grad()
        functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1)).backward()
        norms.append(torch.sqrt(sum(p.grad.square().sum() for p in parameters.values())).item())
        learning_rate = {1: 0.01, 2: 0.02, 3: 0.002}[step]  # two steps of warm-up, then the end of the cosine
        with torch.no_grad():
            for name, p in parameters.items():
                gradient = p.grad * min(1.0, 0.5 / norms[-1])
                p -= learning_rate * (0.1 if name == "mix.weight" else 0.0) * p
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient.square()
                moment = (first[name] / (1 - 0.9**step)) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
                p -= learning_rate * moment
    return {name: p.detach() for name, p in parameters.items()}, norms


class KeepNorms(Callback):
    """Keep the gradient norms, which clipping and AdamW would otherwise hide: both forgive a wrong scale."""

    def __init__(self):
        self.norms: list[float] = []

    def on_gradients_ready(self, step: int, grad_norm: torch.Tensor) -> None:
        self.norms.append(grad_norm.item())


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_one_process_equals_the_update_written_by_hand(accumulation):
    expected, expected_norms = train_by_hand()
    keep = KeepNorms()
    trainer = make_trainer(World(), make_settings(grad_accum_steps=accumulation), callbacks=[keep])
    trainer.fit()
    assert keep.norms == pytest.approx(expected_norms, rel=1e-5)
    for name, tensor in weights_of(trainer).items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=2e-5, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
