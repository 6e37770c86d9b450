"""Combine values over ranks; with a single process each function returns what it was given."""

from typing import Any

import torch.distributed as dist
from torch import Tensor

from trainkit.distributed.parallel import World


def sum_over_ranks(values: Tensor, world: World) -> Tensor:
    """Sum `values` over ranks, in place. Every rank must call this with the same shape."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def gather_objects(value: Any, world: World) -> list[Any]:
    """Return every rank's value, ordered by rank, on every rank. Meant for small Python values."""
    if world.size == 1:
        return [value]
    gathered: list[Any] = [None] * world.size
    dist.all_gather_object(gathered, value)
    return gathered
