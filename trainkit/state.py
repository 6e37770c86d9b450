"""Everything that changes while training, saved and restored whole.

model.safetensors            parameters and persistent buffers, named as in the unwrapped model; tied weights once
model_averaged.safetensors   the same with averaged weights, if the run averages them
optimizer.pt                 the optimizer's state by parameter name, the float16 loss scale, what usual losses and
                             gradient norms are
data.pt                      the position of every rank's batch source
rng.pt                       the global random generators of every rank
state.json                   counters, the number of ranks, what callbacks remember
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.checkpointing.rng import capture_rng, restore_rng
from trainkit.checkpointing.snapshot import AVERAGED_FILE, WEIGHTS_FILE, HostCopies, Snapshot
from trainkit.distributed.gathering import (
    gather_model,
    gather_optimizer,
    named_tensors,
    restore_optimizer,
    restore_tensor,
)
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.errors import CheckpointError
from trainkit.protocols import Stateful
from trainkit.training.averaging import AveragedWeights
from trainkit.training.guard import StepGuard
from trainkit.training.optim import optimizer_kind


@dataclass(slots=True)
class TrainState:
    """Hold the run's state. The schedule has none of its own: it is a function of `step`."""

    model: nn.Module
    """Without compile or DDP wrappers; its parameters may be sharded."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    source: Stateful
    guard: StepGuard
    callbacks: Mapping[str, Stateful]
    world: World
    averages: AveragedWeights | None = None
    step: int = 0
    """Optimizer steps done."""
    weight_seen: float = 0.0
    """Weight of all batches trained on ("tokens", for a language model)."""
    elapsed_s: float = 0.0
    best_loss: float = math.inf
    """Lowest validation loss of the run."""
    best_step: int = 0
    """The step that had it; 0 before the first evaluation."""
    is_evaluation_due: bool = False
    """The evaluation that belongs to this step was put off, because the run was to stop."""

    def collect_ranks(self) -> list[dict[str, Any]]:
        """Return what differs between ranks, by rank. Every rank must call this."""
        source_state = self.source.state_dict()
        _require_plain(source_state, "the batch source's state_dict()")
        return gather_objects({"data": source_state, "rng": capture_rng()}, self.world)

    def gather_tensors(self) -> dict[str, Any]:
        """Return the weights, their averages and the optimizer's state, whole, on rank 0. Every rank must call this.

        What is not sharded is not copied.
        """
        averages = self.averages.by_parameter() if self.averages else None
        return {
            "weights": gather_model(self.model, self.world),
            "averages": gather_model(self.model, self.world, instead=averages) if averages else None,
            "optimizer": gather_optimizer(self.model, self.optimizer),
        }

    def snapshot(
        self, ranks: list[dict[str, Any]], tensors: dict[str, Any], host: HostCopies | None = None
    ) -> Snapshot:
        """Return what a checkpoint of this moment holds: what collect_ranks and gather_tensors returned, and the rest.

        With `host` all is copied, and training may go on while it is written; without, it must be written at once.
        """
        counters = {
            "step": self.step,
            "weight_seen": self.weight_seen,
            "elapsed_s": self.elapsed_s,
            "world_size": self.world.size,
            "optimizer": optimizer_kind(self.optimizer),
            "best_loss": self.best_loss if self.best_step else None,
            "best_step": self.best_step,
            "is_evaluation_due": self.is_evaluation_due,
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
        }
        scaler, guard = self.scaler.state_dict(), self.guard.state_dict()
        parts = {
            **tensors,
            "optimizer": {"optimizer": tensors["optimizer"], "scaler": scaler, "guard": guard},
            "ranks": ranks,
        }
        return Snapshot(**(host.copy(parts) if host else parts), counters=json.dumps(counters, indent=2) + "\n")

    def read(self, folder: Path) -> None:
        """Continue from the state in `folder`, whose manifest was verified. Every rank must call this.

        Raises CheckpointError if it belongs to another model, optimizer or number of ranks.
        """
        counters = _read_counters(folder)
        if counters["world_size"] != self.world.size:
            raise CheckpointError(
                f"checkpoint {folder} was saved by {counters['world_size']} processes and this run has "
                f"{self.world.size}: the data position is kept per process, so resume with "
                f"{counters['world_size']} processes, or start a new run from the checkpoint's weights"
            )
        kind = optimizer_kind(self.optimizer)
        if counters.get("optimizer") != kind:
            raise CheckpointError(
                f"checkpoint {folder} was saved with optimizer {counters.get('optimizer')} and this run has {kind}: "
                "use the same optimizer, or start a new run from the checkpoint's weights"
            )
        check_weights(self.model, folder / WEIGHTS_FILE)
        self._read_optimizer(folder / "optimizer.pt")
        _copy_file(folder / WEIGHTS_FILE, dict(named_tensors(self.model)))
        self._read_averages(folder)
        self.source.load_state_dict(_load(folder / "data.pt")[self.world.rank])
        restore_rng(_load(folder / "rng.pt")[self.world.rank])
        for name, callback in self.callbacks.items():
            if name in counters["callbacks"]:
                callback.load_state_dict(counters["callbacks"][name])
        self.step = counters["step"]
        self.weight_seen = counters["weight_seen"]
        self.elapsed_s = counters["elapsed_s"]
        self.is_evaluation_due = counters.get("is_evaluation_due", False)  # checkpoints of earlier versions lack it
        if counters.get("best_step"):
            self.best_loss, self.best_step = counters["best_loss"], counters["best_step"]

    def _read_optimizer(self, path: Path) -> None:
        saved = _load(path)
        if "param_groups" in saved["optimizer"]:
            raise CheckpointError(
                f"checkpoint {path.parent}: optimizer.pt was written by an earlier version, which did not name the "
                "parameters in it; finish this run with that version, or start a new one (its weights still generate)"
            )
        try:
            restore_optimizer(self.model, self.optimizer, saved["optimizer"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {path.parent}: optimizer.pt belongs to another optimizer or model ({error})"
            ) from error
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if "guard" in saved:
            self.guard.load_state_dict(saved["guard"])

    def _read_averages(self, folder: Path) -> None:
        """Continue the averages; a run that had none so far begins them with its weights as they are."""
        if self.averages is None:
            return
        averages = self.averages.by_parameter()
        targets = {name: averages[tensor] for name, tensor in named_tensors(self.model) if tensor in averages}
        is_continued = (folder / AVERAGED_FILE).exists()
        _copy_file(folder / (AVERAGED_FILE if is_continued else WEIGHTS_FILE), targets)


def check_weights(model: nn.Module, path: Path) -> None:
    """Compare the names and shapes in a safetensors file with those of `model`, before anything is changed.

    Raises CheckpointError naming the tensors that are missing, unknown or of another shape.
    """
    from safetensors import SafetensorError, safe_open  # training without checkpoints needs no safetensors

    own = dict(named_tensors(model))
    try:
        with safe_open(path, framework="pt") as file:
            saved = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path.parent}: {path.name} cannot be read ({error})") from error
    problems = [f"{name} is missing" for name in sorted(own.keys() - saved.keys())]
    problems += [f"{name} is unknown to this model" for name in sorted(saved.keys() - own.keys())]
    problems += [
        f"{name} has shape {saved[name]} instead of {list(own[name].shape)}"
        for name in sorted(own.keys() & saved.keys())
        if saved[name] != list(own[name].shape)
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"checkpoint {path.parent}: {path.name} is of another model: {shown}")


def _copy_file(path: Path, targets: Mapping[str, Tensor]) -> None:
    """Copy one tensor after the other: a model may be larger than what is left of this process's memory."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name, target in targets.items():
            restore_tensor(target, file.get_tensor(name))


def _read_counters(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: state.json cannot be read ({error})") from error


def _load(path: Path) -> Any:
    """Read tensors and plain values; weights_only refuses anything that would run code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _require_plain(value: Any, where: str) -> None:
    """Raise TypeError now, at saving, for a value that could not be read back later."""
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not isinstance(value, (Tensor, str, bytes, int, float, type(None))):
        raise TypeError(f"{where} is a {type(value).__name__}: return plain Python values and tensors")
