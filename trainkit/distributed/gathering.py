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
from torch.utils._pytree import tree_map_only

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
    """Return copies of all named tensors on rank 0's CPU, and nothing on other ranks. Every rank must call this.

    instead: parameter -> what to gather in its place, sharded like it.
    """
    whole = {}
    for name, tensor in named_tensors(model):
        chosen = instead.get(tensor, tensor) if instead is not None else tensor
        gathered = _gather(chosen, world)
        if gathered is not None:
            whole[name] = gathered
    return whole


@torch.no_grad()
def restore_tensor(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into `target`, or of a sharded one this rank's slice. No rank waits for another."""
    if isinstance(target, DTensor):
        # Every rank has read the same file, so it cuts its own slice.
        whole = distribute_tensor(
            whole.to(target.device_mesh.device_type), target.device_mesh, target.placements, src_data_rank=None
        )
    target.copy_(whole)


def gather_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """Return parameter name -> its optimizer state, copied to rank 0's CPU; {} elsewhere. Every rank must call this."""
    if not optimizer.state:  # no step was taken; torch would take one to find out what the state will look like
        return {}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = get_optimizer_state_dict(model, optimizer, options=options)
    if not world.is_first:
        return {}
    # On a CPU there was nothing to move, and the next step would change what is still being written.
    state = gathered["state"]
    return tree_map_only(Tensor, Tensor.clone, state) if world.device.type == "cpu" else state


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


def _gather(tensor: Tensor, world: World) -> Tensor | None:
    if isinstance(tensor, DTensor):
        whole = tensor.full_tensor()
        return whole.cpu() if world.is_first else None
    return tensor.detach().to("cpu", copy=True) if world.is_first else None
