"""Where documents come from: anything that can be indexed, or an iterable dataset that knows its position."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Documents(Protocol[T_co]):
    """An iterator of documents that can be saved and that says where it stands."""

    epoch: int
    """Times the end was passed."""

    def __next__(self) -> T_co:
        """Return the next document; raise StopIteration at the end of a source that does not repeat."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position from which the next document follows."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        ...

    def origin(self) -> str:
        """Say in human words where the last document came from."""
        ...


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share: documents rank, rank + size, rank + 2 size, ..."""

    rank: int = 0
    size: int = 1


class IndexedDocuments(Iterator[T]):
    """Documents get(0), get(1), ... of one shard; endless if count is None.

    With a shuffle seed every epoch is a fresh permutation of all documents, the same on every rank, and shards are
    taken from the permuted order: together they always hold everything once.
    """

    def __init__(
        self,
        get: Callable[[int], T],
        count: int | None,
        name: str,
        shard: Shard | None = None,
        repeat: bool = True,
        shuffle_seed: int | None = None,
    ) -> None:
        assert count is not None or shuffle_seed is None, "an endless source has no permutation"
        self.get, self.count, self.name, self.repeat = get, count, name, repeat
        self.shard = shard or Shard()
        self.shuffle_seed = shuffle_seed
        self.position, self.epoch, self.last = 0, 0, -1
        self._order: np.ndarray | None = None
        self._order_epoch = -1

    def __next__(self) -> T:
        index = self.position * self.shard.size + self.shard.rank
        if self.count is not None and index >= self.count:
            if not self.repeat or self.shard.rank >= self.count:
                raise StopIteration
            self.position, self.epoch, index = 0, self.epoch + 1, self.shard.rank
        self.position += 1
        self.last = self._permuted(index)
        return self.get(self.last)

    def _permuted(self, index: int) -> int:
        if self.shuffle_seed is None:
            return index
        if self._order_epoch != self.epoch:
            self._order = np.random.default_rng([self.shuffle_seed, self.epoch]).permutation(self.count)
            self._order_epoch = self.epoch
        return int(self._order[index])

    def state_dict(self) -> dict[str, Any]:
        """Return the position from which the next document follows."""
        return {"position": self.position, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.position, self.epoch = state["position"], state["epoch"]

    def origin(self) -> str:
        """Name the last document."""
        return f"{self.name}, epoch {self.epoch}, document {self.last}"


class ResumableIterable(Protocol):
    """What StreamedDocuments needs of a dataset; `datasets.IterableDataset` has it."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position reached by the iterator in use."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iterator start from there."""
        ...


class StreamedDocuments(Iterator[T]):
    """Documents get(record) of an iterable dataset's records; the dataset is opened anew for every epoch."""

    def __init__(
        self,
        open_dataset: Callable[[], ResumableIterable],
        get: Callable[[Any], T],
        name: str,
        repeat: bool = True,
    ) -> None:
        """open_dataset: returns this rank's share from its beginning."""
        self.open_dataset, self.get, self.name, self.repeat = open_dataset, get, name, repeat
        self.epoch, self.position = 0, 0
        self._dataset = open_dataset()
        self._iterator = iter(self._dataset)

    def __next__(self) -> T:
        try:
            record = next(self._iterator)
        except StopIteration:
            if not self.repeat or self.position == 0:
                raise
            self.epoch, self.position = self.epoch + 1, 0
            self._dataset = self.open_dataset()
            self._iterator = iter(self._dataset)
            record = next(self._iterator)
        self.position += 1
        return self.get(record)

    def state_dict(self) -> dict[str, Any]:
        """Return the dataset's own position, the epoch and the documents read in it."""
        return {"epoch": self.epoch, "position": self.position, "dataset": self._dataset.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._dataset = self.open_dataset()
        self._dataset.load_state_dict(state["dataset"])
        self._iterator = iter(self._dataset)

    def origin(self) -> str:
        """Name the last document by its place in this rank's share."""
        return f"{self.name}, epoch {self.epoch}, document {self.position - 1} of this rank"
