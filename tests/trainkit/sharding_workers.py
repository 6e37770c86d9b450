"""What ranks that share a model by FSDP do in the tests, and report."""

from pathlib import Path
from typing import Any

import torch
from parity_workers import Cell, DeepModel, make_deep_trainer, muon_in_float32, whole
from torch.distributed.tensor import DTensor
from trainkit_workers import global_batch

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.distributed.parallel import World
from trainkit.distributed.strategy import Strategy, prepare_model
from trainkit.evaluation import Validation
from trainkit.training.guard import step_if, step_on_device
from trainkit.training.optim import set_learning_rate

DROPOUT = 0.3


def count_held(world: World) -> dict[str, int]:
    """Count the numbers this rank holds of the parameters and of the optimizer's state after a step."""
    trainer = make_deep_trainer(world, Cell(strategy="fsdp"), changes={"max_steps": 2})
    trainer.fit()
    state = [value for values in trainer.state.optimizer.state.values() for value in values.values() if value.ndim]
    return {
        "parameters": sum(p.to_local().numel() for p in trainer.parameters),
        "state": sum(value.to_local().numel() for value in state),
        "whole": sum(p.numel() for p in trainer.parameters),
    }


def train_and_resume(world: World, folder: str, first: Cell, then: Cell) -> dict[str, Any]:
    """Train `first` to step 3 of 7, then `then` from its checkpoint to the end, and `then` in one piece."""

    def run(cell: Cell, name: str, stop_at: int) -> Any:
        manager = CheckpointManager(Path(folder) / name)
        changes = {"max_steps": 7, "average_decay": 0.5, "save_every": 3}
        trainer = make_deep_trainer(world, cell, dropout=DROPOUT, changes=changes, checkpoints=manager)
        if manager.latest():
            trainer.resume(manager.latest())
        trainer.max_steps = stop_at
        trainer.fit()
        return trainer

    with muon_in_float32():
        run(first, "cut", 3)
        trainers = {"resumed": run(then, "cut", 7), "uninterrupted": run(then, "whole", 7)}
    return {name: collect(trainer) for name, trainer in trainers.items()}


def collect(trainer: Any) -> dict[str, Any]:
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    optimizer = {
        f"{names[parameter]} {key}": whole(value)
        for parameter, values in trainer.state.optimizer.state.items()
        for key, value in values.items()
    }
    weights = {name: whole(parameter) for parameter, name in names.items()}
    averages = {names[p]: whole(average) for p, average in trainer.averages.by_parameter().items()}
    return {"weights": weights, "averages": averages, "optimizer": optimizer, "rng": {"rng": torch.get_rng_state()}}


def train_with_and_without_evaluations(world: World) -> list[dict[str, torch.Tensor]]:
    """Return the weights of a run whose averages are evaluated after each step, and of one that never evaluates."""
    found = []
    for validation in (Validation(make_batches=lambda: [global_batch(100)], every=1, max_batches=1), None):
        changes = {"max_steps": 4, "average_decay": 0.9}
        trainer = make_deep_trainer(world, Cell(strategy="fsdp"), changes=changes, validation=validation)
        trainer.fit()
        found.append({name: whole(parameter) for name, parameter in trainer.model.named_parameters()})
    return found


def evaluate_uneven(world: World, strategy: str, batches_by_rank: list[int]) -> tuple[float, float, int]:
    """Evaluate with a different number of batches on each rank."""
    batches = [global_batch(10 * world.rank + index) for index in range(batches_by_rank[world.rank])]
    validation = Validation(make_batches=lambda: batches, every=1, max_batches=3)
    trainer = make_deep_trainer(world, Cell(strategy=strategy), changes={"max_steps": 2}, validation=validation)
    found = trainer.fit().evaluation
    return found.loss, found.weight, found.batches


def step_by_device_work_alone(world: World, optimizer: str) -> dict[str, Any]:
    """Take a good step, a bad one and a good one as a GPU would, and the two good ones as a CPU does."""
    trainers = [make_deep_trainer(world, Cell(strategy="fsdp", optimizer=optimizer)) for _ in range(2)]
    for is_good in (True, False, True):
        for trainer, step in zip(trainers, (step_on_device, step_if), strict=True):
            set_learning_rate(trainer.state.optimizer, 0.02)
            for parameter in trainer.parameters:
                parameter.grad = torch.full_like(parameter, 0.1 if is_good else float("nan"))
            step(trainer.state.optimizer, torch.tensor(is_good))
    found, expected = ([whole(p) for p in trainer.parameters] for trainer in trainers)
    return {"is_equal": all(map(torch.equal, found, expected)), "is_finite": all(w.isfinite().all() for w in found)}


def look_inside(world: World) -> dict[str, Any]:
    """Report the types that a block and what is outside of it compute in, and of the gradients."""
    model = DeepModel()
    for layer in model.layers:
        layer.norm = torch.nn.Identity()  # torch's LayerNorm wants weights of its input's type, on a CPU
    prepared = prepare_model(model, model.layers, world, Strategy("fsdp", dtype=torch.bfloat16))
    seen = {}
    model.layers[0].up.register_forward_hook(lambda layer, *_: seen.update(block=layer.weight.dtype))
    model.norm.register_forward_hook(lambda norm, *_: seen.update(outside=norm.weight.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared.training(global_batch(1)["ids"][:, :-1], torch.zeros(())).float().square().sum().backward()
    seen["gradients"] = {parameter.grad.dtype for parameter in model.parameters()}
    seen["is_sharded"] = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return seen


def refuse(world: World) -> list[str]:
    """Return what is said against arrangements that cannot work."""
    half, twice = DeepModel(), DeepModel()
    twice.layers[1].up = twice.layers[0].up
    arrangements = [
        (half, half.layers, Strategy("fsdp", dtype=torch.float16)),
        (twice, twice.layers, Strategy("fsdp")),
        (DeepModel(), (), Strategy(recomputes_blocks=True)),
        (DeepModel(), (), Strategy("zero")),
    ]
    said = []
    for model, blocks, strategy in arrangements:
        try:
            prepare_model(model, blocks, world, strategy)
        except ValueError as error:
            said.append(str(error))
    return said
