"""Prepare a model for the processes that train it together.

ddp    every process has all of the model; gradients are averaged after the last micro-batch
fsdp   every process has a slice of each parameter, of its gradient and of its optimizer state; a block's parameters
       are gathered just before they are used and let go just after (torch's fully_shard, "FSDP2")

Blocks are the repeated parts of a model, such as its layers: the units that are gathered, or computed again, at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from trainkit.distributed.parallel import World

StrategyName = Literal["ddp", "fsdp"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """Say how processes share a model, and how its blocks are run."""

    name: StrategyName = "ddp"
    recomputes_blocks: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass (activation checkpointing)."""
    compile: bool = False
    """Compile the whole model; under fsdp each block by itself, with the gathering between them."""
    dtype: torch.dtype = torch.float32
    """What blocks are gathered in under fsdp; gradients are always summed in float32."""


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """Hold the two faces of a model: one for training steps, one for everything else."""

    training: nn.Module
    """Its backward pass exchanges gradients."""
    evaluation: nn.Module
    """Compiled where that was asked for; only a sharded one talks to the other ranks."""

    @property
    def is_sharded(self) -> bool:
        """Tell whether each forward pass needs every rank."""
        return isinstance(self.evaluation, FSDPModule)

    @contextmanager
    def exchanging_gradients(self, is_last: bool) -> Iterator[None]:
        """Exchange gradients in the backward pass inside the block if it is the step's last, else only add them up."""
        if isinstance(self.training, FSDPModule):
            self.training.set_requires_gradient_sync(is_last)
            yield
        elif isinstance(self.training, nn.parallel.DistributedDataParallel) and not is_last:
            with self.training.no_sync():
                yield
        else:
            yield


def prepare_model(model: nn.Module, blocks: Sequence[nn.Module], world: World, strategy: Strategy) -> PreparedModel:
    """Move a model to this world's device and share it as the strategy says; the weights become those of rank 0.

    Raises ValueError for a strategy that does not exist, or does not fit the model.
    """
    if strategy.name not in ("ddp", "fsdp"):
        raise ValueError(f"unknown strategy {strategy.name!r}: use ddp or fsdp")
    if strategy.recomputes_blocks:
        if not blocks:
            raise ValueError("activation checkpointing needs blocks to compute again: name them in Task.blocks")
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if strategy.name == "fsdp" and dist.is_initialized():
        _shard(model, blocks, world, strategy)
        return PreparedModel(model, model)
    model.to(world.device)
    evaluation = torch.compile(model) if strategy.compile else model
    if world.size == 1:
        return PreparedModel(evaluation, evaluation)
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    training = nn.parallel.DistributedDataParallel(evaluation, device_ids=device_ids, gradient_as_bucket_view=True)
    return PreparedModel(training, evaluation)


def _shard(model: nn.Module, blocks: Sequence[nn.Module], world: World, strategy: Strategy) -> None:
    """Shard block after block, so that no device ever holds more than one of them whole."""
    if strategy.dtype == torch.float16:
        raise ValueError("fsdp does not scale losses, so float16 would lose gradients: use precision bfloat16")
    uses = Counter(parameter for block in blocks for parameter in block.parameters())
    if max(uses.values(), default=1) > 1:
        raise ValueError("two blocks share a parameter, which fsdp cannot shard twice: use strategy ddp")
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Outside the blocks stay the residual stream's ends and the head: few weights, whose precision matters most.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if strategy.dtype != torch.float32:
        policy = MixedPrecisionPolicy(strategy.dtype, torch.float32, cast_forward_inputs=False)
    for block in blocks:
        if strategy.compile:
            block.forward = torch.compile(block.forward)
        _take_from_first_rank(block, world)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    if strategy.compile and not blocks:
        model.forward = torch.compile(model.forward)
    _take_from_first_rank(model, world)
    # The default would leave the root's parameters gathered, and stale, after a forward pass without a backward one.
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False), reshard_after_forward=True)


@torch.no_grad()
def _take_from_first_rank(module: nn.Module, world: World) -> None:
    for tensor in chain(module.parameters(), module.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(world.device)
            dist.broadcast(tensor.data, src=0)
