"""Hold still what a checkpoint will contain, so that training can go on while it is written.

Copying to host memory is all that the loop waits for. The memory of one snapshot serves the next: fresh memory costs
several times the copy itself, because every page is touched for the first time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.checkpointing import storage

WEIGHTS_FILE, AVERAGED_FILE = "model.safetensors", "model_averaged.safetensors"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Carry the state of one moment; trainkit/state.py says what each file means."""

    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Any]
    ranks: list[dict[str, Any]]
    """Data position and random generators of every rank."""
    counters: str
    """The content of state.json."""

    def write(self, folder: Path) -> None:
        """Write the files of the checkpoint into `folder`; the manifest follows when all others are there."""
        storage.write_tensors(folder / WEIGHTS_FILE, self.weights)
        if self.averages is not None:
            storage.write_tensors(folder / AVERAGED_FILE, self.averages)
        storage.write_values(folder / "optimizer.pt", self.optimizer)
        storage.write_values(folder / "data.pt", [rank["data"] for rank in self.ranks])
        storage.write_values(folder / "rng.pt", [rank["rng"] for rank in self.ranks])
        storage.write_file(folder / "state.json", self.counters.encode())


class HostCopies:
    """Copy nested values into host memory that is kept and written over by the next copy."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def copy(self, value: Any) -> Any:
        """Return a copy of dictionaries, lists, tuples and tensors, which a later change of `value` does not reach.

        It is valid until the next call. Tensors arrive on the CPU; those of a GPU in memory it can write to directly.
        """
        used: dict[str, Tensor] = {}
        copied = self._copy(value, "", used)
        self._kept = used  # what is no longer asked for is let go
        if any(tensor.is_pinned() for tensor in used.values()):
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any, where: str, used: dict[str, Tensor]) -> Any:
        if isinstance(value, Tensor):
            used[where] = self._copy_tensor(value.detach(), where)
            return used[where]
        if isinstance(value, Mapping):
            return {key: self._copy(item, f"{where}/{key!r}", used) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._copy(item, f"{where}/{index}", used) for index, item in enumerate(value))
        return value

    def _copy_tensor(self, tensor: Tensor, where: str) -> Tensor:
        target = self._kept.get(where)
        if target is None or target.shape != tensor.shape or target.dtype != tensor.dtype:
            target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return target.copy_(tensor, non_blocking=True)
