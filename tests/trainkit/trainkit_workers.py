"""Functions that run in child processes, and the small task that the tests of trainkit train."""

import os
import pickle
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainkit.checkpointing.finding import find_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.clock import StepTimes
from trainkit.distributed.parallel import World, process_group, world_from_environment
from trainkit.errors import CheckpointSaveError
from trainkit.evaluation import Validation
from trainkit.logging.console import ConsoleLogger
from trainkit.metrics import StepRecord
from trainkit.protocols import Batch, StepContext, StepOutput
from trainkit.settings import Task, TrainerSettings
from trainkit.trainer import Trainer
from trainkit.training.optim import AdamWSettings
from trainkit.training.schedule import Schedule

GLOBAL_ROWS, LENGTH, VOCABULARY, WIDTH = 8, 5, 13, 6


def be_rank(environment: dict[str, Any], sender: Any, function: Any, arguments: tuple) -> None:
    """Run one rank and send its value, or its exception, to the test."""
    os.environ.update({name: str(value) for name, value in environment.items()})
    world = world_from_environment("cpu")
    with process_group(world, "gloo"):
        try:
            value = function(world, *arguments)
        except Exception as error:
            value = error
        sender.send_bytes(pickle.dumps(value))  # by value: torch would send tensors as shared memory that dies with us
        sender.close()


class ToyModel(nn.Module):
    """Embed, mix, normalise, project on the tied embedding: one parameter of every role, and dropout."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, noise: Tensor) -> Tensor:
        return self.head(self.norm(self.dropout(torch.tanh(self.mix(self.embedding(ids) + noise)))))


def make_model(dropout: float = 0.0) -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(dropout)


def global_batch(step: int, rows: int = GLOBAL_ROWS) -> dict[str, Tensor]:
    """Return the whole batch of a step, ragged; in step 2 the second quarter has no target at all."""
    rng = torch.Generator().manual_seed(1000 + step)
    ids = torch.randint(VOCABULARY, (rows, LENGTH + 1), generator=rng)
    lengths = torch.randint(1, LENGTH + 1, (rows, 1), generator=rng)
    valid = torch.arange(LENGTH) < lengths
    if step == 2:
        valid[rows // 4 : rows // 2] = False
    return {"ids": ids, "valid": valid}


class ToySource:
    """Yield one rank's share of the global batches, cut by (micro-batch, rank)."""

    def __init__(self, world: World, accumulation: int, global_rows: int = GLOBAL_ROWS):
        self.world, self.accumulation, self.position = world, accumulation, 0
        self.global_rows, self.rows = global_rows, global_rows // (world.size * accumulation)
        self.seen: list[int] = []

    def __next__(self) -> Batch:
        step, micro = divmod(self.position, self.accumulation)
        first = (micro * self.world.size + self.world.rank) * self.rows
        self.position += 1
        self.seen.append(self.position)
        return {
            name: tensor[first : first + self.rows] for name, tensor in global_batch(step + 1, self.global_rows).items()
        }

    def origin(self) -> str:
        return f"toy batch {self.position}"

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def toy_objective(model: nn.Module, batch: Batch, context: StepContext) -> StepOutput:
    """Sum the cross-entropy over valid targets, with noise drawn for the whole global batch."""
    rows = batch["ids"].shape[0]
    noise = torch.randn(context.total_rows, LENGTH, WIDTH, generator=context.rng)
    noise = 0.1 * noise[context.first_row : context.first_row + rows]
    logits = model(batch["ids"][:, :-1], noise)
    losses = functional.cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="none")
    valid = batch["valid"].flatten()
    hits = (logits.flatten(0, 1).argmax(-1) == batch["ids"][:, 1:].flatten()) & valid
    return StepOutput((losses * valid).sum(), valid.sum(), {"accuracy": hits.sum()})


def make_settings(max_steps: int = 3, **changes: Any) -> TrainerSettings:
    values = {
        "schedule": Schedule("cosine", 0.02, max_steps=max_steps, min_learning_rate=0.002, warmup_steps=2),
        "optimizer": AdamWSettings(weight_decay=0.1),
        "grad_clip_norm": 0.5,
        "precision": "float32",
        "log_every": 1,
    }
    return TrainerSettings(**(values | changes))


def make_trainer(world: World, settings: TrainerSettings, dropout: float = 0.0, **parts: Any) -> Trainer:
    source = parts.pop("source", None) or ToySource(world, settings.grad_accum_steps)
    objective = parts.pop("objective", toy_objective)
    return Trainer(Task(make_model(dropout), objective, source), settings, world, **parts)


def make_record(**changes: Any) -> StepRecord:
    """Return a record of a plausible step."""
    values = {
        "step": 1, "loss": 3.0, "loss_ema": 3.1, "learning_rate": 1e-3, "learning_rates": {"matrix": 1e-3},
        "grad_norm": 0.834, "skipped_steps": 0, "weight": 4096.0, "weight_seen": 491520.0,
        "times": StepTimes(100.0, 3.0, 80.0, 17.0), "pauses_ms": {"checkpoint": 0.0, "evaluation": 0.0},
        "data_wait_share": 0.03, "elapsed_s": 12.5, "mfu": None, "peak_memory_mb": 100.0, "metrics": {},
    }  # fmt: skip
    return StepRecord(**(values | changes))


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def train_with_interruption(world: World, folder: str, stop_at: int, max_steps: int) -> dict[str, Any]:
    """Train to `stop_at` steps if nothing is saved in `folder` yet, else resume to `max_steps`."""
    manager = CheckpointManager(Path(folder))
    settings = make_settings(max_steps, grad_accum_steps=2, save_every=stop_at)
    trainer = make_trainer(world, settings, dropout=0.3, checkpoints=manager)
    if manager.latest():
        trainer.resume(find_checkpoint(manager.folder))
    else:
        trainer.max_steps = stop_at  # as if it had been killed right after this save
    trainer.fit()
    return {
        "weights": weights_of(trainer),
        "optimizer": trainer.state.optimizer.state_dict()["state"],
        "rng": torch.get_rng_state(),
        "seen": trainer.source.seen,
        "weight_seen": trainer.state.weight_seen,
    }


def interrupted_and_whole(world: World, folder: str) -> tuple[dict, dict, dict]:
    """Return the ends of a run cut after 3 of 7 steps, of its continuation, and of the same run in one piece."""
    first = train_with_interruption(world, f"{folder}/cut", stop_at=3, max_steps=7)
    second = train_with_interruption(world, f"{folder}/cut", stop_at=3, max_steps=7)
    whole = train_with_interruption(world, f"{folder}/whole", stop_at=7, max_steps=7)
    return first, second, whole


class TalkingModel(nn.Module):
    """A toy model whose every forward pass needs all ranks, as a sharded model's does."""

    def __init__(self):
        super().__init__()
        self.inner = make_model()

    def forward(self, ids: Tensor, noise: Tensor) -> Tensor:
        torch.distributed.all_reduce(torch.zeros(1))
        return self.inner(ids, noise)


def evaluate_uneven(world: World, batches_by_rank: list[int], is_talking: bool = False) -> tuple[float, float, int]:
    """Evaluate with a different number of batches on each rank."""
    batches = [global_batch(10 * world.rank + index) for index in range(batches_by_rank[world.rank])]
    validation = Validation(make_batches=lambda: batches, every=0, max_batches=3)
    trainer = make_trainer(world, make_settings(max_steps=2), validation=validation)
    if is_talking:
        talking = TalkingModel()
        talking.inner = trainer.model
        trainer.compiled = talking
    result = trainer.fit()
    return result.evaluation.loss, result.evaluation.weight, result.evaluation.batches


def poisoned(step: int) -> Any:
    """Return an objective whose loss is NaN on rank 1 in one step."""

    def objective(model: nn.Module, batch: Batch, context: StepContext) -> StepOutput:
        output = toy_objective(model, batch, context)
        is_bad = context.first_row in (2, 6) and torch.equal(batch["ids"][:2], global_batch(step)["ids"][2:4])
        return StepOutput(output.loss_sum * (float("nan") if is_bad else 1.0), output.weight, output.metrics)

    return objective


def train_poisoned(world: World, folder: str) -> Any:
    manager = CheckpointManager(Path(folder))
    settings = make_settings(max_steps=5, grad_accum_steps=2, save_every=1)
    make_trainer(world, settings, objective=poisoned(step=3), checkpoints=manager).fit()


def resume_here(world: World, folder: str) -> None:
    make_trainer(world, make_settings(grad_accum_steps=2)).resume(find_checkpoint(Path(folder)))


class SlowSource(ToySource):
    """Take a little time over each batch and leave a mark, so that a test can send its signal in time."""

    mark: Path | None = None

    def __next__(self) -> Batch:
        time.sleep(0.02)
        if self.position == 5 and self.mark:
            self.mark.touch()
        return super().__next__()


def train_until_signal(folder: str, max_steps: int, world: World | None = None) -> int:
    """Train slowly, resuming what is there; return the exit code."""
    torch.set_num_threads(1)
    world = world or World()
    manager = CheckpointManager(Path(folder) / "checkpoints")
    source = SlowSource(world, 1)
    source.mark = Path(folder) / "training"
    callbacks = [ConsoleLogger(resume_command="resume --please")]
    trainer = make_trainer(
        world, make_settings(max_steps, log_every=1000), source=source, checkpoints=manager, callbacks=callbacks
    )
    if manager.latest():
        trainer.resume(manager.latest())
    result = trainer.fit()
    if world.is_first:
        torch.save(weights_of(trainer), Path(folder) / "weights.pt")
    return result.exit_code


def save_on_a_small_disk(folder: str, kilobytes: int | None) -> None:
    """Save twice, the second time with a model too large for the disk (or for the file size limit)."""
    manager = CheckpointManager(Path(folder))
    make_trainer(World(), make_settings(), checkpoints=manager).save()
    trainer = make_trainer(World(), make_settings(), checkpoints=manager)
    trainer.state.step = 1
    trainer.model.ballast = torch.nn.Parameter(torch.zeros(1_000_000))
    if kilobytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))
    try:
        trainer.save()
    except CheckpointSaveError as error:
        Path(folder).with_suffix(".message").write_text(str(error))
        sys.exit(0)
    sys.exit(1)


def train_and_exit(folder: str, max_steps: int) -> None:
    sys.exit(train_until_signal(folder, max_steps))


def train_launched(world: World, folder: str, max_steps: int) -> int:
    return train_until_signal(folder, max_steps, world)


def fail_on_rank_one(world: World, message: str) -> None:
    """Raise on one rank while the other waits for it in a collective."""
    if world.rank == 1:
        raise ValueError(message)
    torch.distributed.barrier()


def report_world(world: World) -> tuple[int, int, int]:
    total = torch.tensor(float(world.rank + 1))
    torch.distributed.all_reduce(total)
    return world.rank, world.size, int(total)


if __name__ == "__main__":
    from trainkit.distributed.launch import LaunchSettings, launch

    sys.exit(launch(train_launched, sys.argv[1], int(sys.argv[2]), settings=LaunchSettings(nproc_per_node=2)))
