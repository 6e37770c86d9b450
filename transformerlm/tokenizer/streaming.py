"""Work on a stream of blocks in threads, and put what comes out together, in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUEUED_PER_THREAD = 2


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield function(item) in the order of items, a few of which are worked on at a time.

    With one thread there are no others: each result is made when it is asked for.
    """
    if threads == 1:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _QUEUED_PER_THREAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def concatenate(arrays: Iterable[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Join arrays as they come, [items]; never holds more than the result, and a quarter of it to spare."""
    joined, filled = np.empty(0, dtype), 0
    for array in arrays:
        if filled + len(array) > len(joined):
            joined.resize(max(filled + len(array), len(joined) * 5 // 4), refcheck=False)
        joined[filled : filled + len(array)] = array
        filled += len(array)
    joined.resize(filled, refcheck=False)
    return joined


def write_array(arrays: Iterable[np.ndarray], dtype: np.dtype, path: Path) -> np.ndarray:
    """Write arrays behind each other into a file, little-endian, and return it memory-mapped, [items]."""
    with replacing(path) as file:
        for array in arrays:
            file.write(array.astype(dtype.newbyteorder("<"), copy=False).data)
    return np.memmap(path, dtype.newbyteorder("<"), mode="r") if path.stat().st_size else np.empty(0, dtype)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write beside a file and rename at the end, so that a reader finds the old file or the new, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
