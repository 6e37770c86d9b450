"""Records: what every source of documents yields, and how sources share them out among ranks.

All sources deal records to ranks the same way. Epochs follow one another in a single endless sequence, and record g of
that sequence goes to rank g mod size:

    epoch      0 0 0 0 0 1 1 1 1 1 2 ...       5 documents
    document   a b c d e a b c d e a
    rank       0 1 0 1 0 1 0 1 0 1 0           2 ranks

So ranks hold disjoint documents, together all of them, and an epoch ends for all ranks at the same place, whether or
not their number divides the number of documents, and also where there are more ranks than documents.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np


class Record(NamedTuple):
    """One document as its source has it, before it is decoded and encoded."""

    epoch: int
    """Times the source had passed its end."""
    place: str
    """Where it stands, for people: "stories.jsonl:12"."""
    payload: Any
    """Text, bytes or an array: what a checkpoint can hold."""
    problem: str = ""
    """Why it cannot be used, if the source already knows."""


class BadRecord(ValueError):
    """A record that cannot be used; the message is the reason, without the place."""


class Records(Protocol):
    """An iterator of records that can be saved."""

    def __next__(self) -> Record:
        """Return the next record; raise StopIteration at the end of a source that does not repeat."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position from which the next record follows, as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        ...


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share: records rank, rank + size, rank + 2 size, ... of the endless sequence."""

    rank: int = 0
    size: int = 1


class IndexedRecords(Iterator[Record]):
    """Documents get(0), get(1), ... of one shard; endless if count is None.

    With a shuffle seed every epoch is a fresh permutation of all documents, the same on every rank.
    """

    def __init__(
        self,
        get: Callable[[int], Any],
        count: int | None,
        name: str,
        shard: Shard | None = None,
        repeat: bool = True,
        shuffle_seed: int | None = None,
    ) -> None:
        """get: returns a payload, or raises BadRecord."""
        assert count is not None or shuffle_seed is None, "an endless source has no permutation"
        self.get, self.count, self.name, self.repeat = get, count, name, repeat
        self.shard = shard or Shard()
        self.shuffle_seed = shuffle_seed
        self.position = 0
        self._order: np.ndarray | None = None
        self._order_epoch = -1

    def __next__(self) -> Record:
        if self.count == 0:
            refuse_if_repeating(self.repeat, self.name)
            raise StopIteration
        dealt = self.position * self.shard.size + self.shard.rank
        epoch, index = (0, dealt) if self.count is None else divmod(dealt, self.count)
        if epoch > 0 and not self.repeat:
            raise StopIteration
        self.position += 1
        document = self._permuted(epoch, index)
        place = f"{self.name}, epoch {epoch}, document {document}"
        try:
            return Record(epoch, place, self.get(document))
        except BadRecord as error:
            return Record(epoch, place, None, str(error))

    def _permuted(self, epoch: int, index: int) -> int:
        if self.shuffle_seed is None:
            return index
        if self._order_epoch != epoch:
            self._order = np.random.default_rng([self.shuffle_seed, epoch]).permutation(self.count)
            self._order_epoch = epoch
        return int(self._order[index])

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the number of documents it is a position in."""
        return {"position": self.position, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position; raises ValueError if the corpus has changed."""
        if state["count"] != self.count:
            raise ValueError(
                f"{self.name} has {self.count} documents and had {state['count']} when the checkpoint was saved, so "
                "its position there means nothing here; restore the corpus, or start a new run from the weights"
            )
        self.position = state["position"]


def refuse_if_repeating(repeat: bool, name: str) -> None:
    """Raise ValueError for an empty source that was to be read for ever."""
    if repeat:
        raise ValueError(f"{name} holds no document, so 0 tokens to train on; name a corpus with text in it")
