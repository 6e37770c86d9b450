"""Combine values over ranks; with a single process each function returns what it was given."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from trainkit.distributed.parallel import World

Item = TypeVar("Item")


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


def keep_in_step(items: Iterable[Item], world: World) -> Iterator[tuple[Item, bool]]:
    """Yield this rank's items with True, then other ranks' items with False until the last rank has run out.

    For loops whose body needs every rank. Every rank must run it to its end.
    """
    own = iter(items)
    item = next(own, None)
    filler = next((each for each in gather_objects(item, world) if each is not None), None)
    while any(gather_objects(item is not None, world)):
        yield (filler, False) if item is None else (item, True)
        item = next(own, None)
