"""Gather a model and its optimizer into whole tensors on rank 0, and deal such tensors out again.

What is gathered does not tell how it was shared: a checkpoint of a sharded run resumes on any number of ranks under
any strategy, and one process loads it for inference. Names are those of the unwrapped model, tied weights appear once.
The price: rank 0 needs room for all of it in its main memory, at float32 about 12 bytes per parameter with AdamW.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from trainkit.distributed.parallel import World


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and persistent buffers, each once under its first name, sharded ones as they are."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


@torch.no_grad()
def gather_model(model: nn.Module, world: World, instead: Mapping[nn.Parameter, Tensor] | None = None) -> dict:
    """Return the named tensors, the sharded ones whole on rank 0's CPU. Every rank must call this.

    instead: parameter -> what to gather in its place, sharded like it.
    What is not sharded is not copied; of what is, other ranks than 0 get nothing.
    """
    gathered = {}
    for name, tensor in named_tensors(model):
        tensor = tensor if instead is None else instead.get(tensor, tensor)
        if isinstance(tensor, DTensor):
            whole = tensor.full_tensor()  # one after the other: a device may not have room for all
            tensor = whole.cpu() if world.is_first else None
        if tensor is not None:
            gathered[name] = tensor.detach()
    return gathered


@torch.no_grad()
def restore_tensor(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into `target`, or of a sharded one this rank's slice. No rank waits for another."""
    if isinstance(target, DTensor):
        # Every rank has read the same file, so it cuts its own slice.
        whole = distribute_tensor(
            whole.to(target.device_mesh.device_type), target.device_mesh, target.placements, src_data_rank=None
        )
    target.copy_(whole)


def gather_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return parameter name -> its optimizer state, the sharded ones whole on rank 0's CPU.

    Every rank must call this. What is not sharded is not copied; of what is, other ranks than 0 get nothing.
    """
    if not optimizer.state:  # no step was taken; torch would take one to find out what the state will look like
        return {}
    is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    options = StateDictOptions(full_state_dict=is_sharded, cpu_offload=is_sharded)
    return get_optimizer_state_dict(model, optimizer, options=options).get("state", {})


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Continue from a gathered state. Settings of the groups, such as the weight decay, stay those of this run.

    Every rank must call this with the state that it has read. Raises ValueError if the names do not fit the model.
    """
    if not state:
        return
    names = {parameter: name for name, parameter in model.named_parameters()}
    trained = {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
    strangers = sorted(map(str, trained ^ state.keys()))
    if strangers:
        raise ValueError(f"what it holds or lacks: {', '.join(strangers[:5])}")
    groups = [
        {**group, "params": [names[parameter] for parameter in group["params"]]} for group in optimizer.param_groups
    ]
    set_optimizer_state_dict(
        model,
        optimizer,
        {"state": dict(state), "param_groups": groups},
        options=StateDictOptions(full_state_dict=True),
    )
