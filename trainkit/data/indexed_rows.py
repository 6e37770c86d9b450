"""Rows cut out of documents that can be indexed, in an order that is a function of a seed.

As in Megatron-LM's GPTDataset, samples cross documents. Every epoch lays all documents end to end in an order of its
own, epochs follow one another without a gap, and that endless line is cut into rows:

    line     | epoch 0: documents 2 0 1        | epoch 1: documents 1 2 0 ...
    rows     |----|----|----|----|----|----|----|----|----|----|--          the one that crosses belongs to epoch 0

The rows of an epoch are then dealt in an order of their own, row g of the endless sequence to rank g mod size. A
position is a number, so any row can be found at once and resuming is exact; and no token is lost or repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trainkit.data.documents import Shard
from trainkit.data.packing import RowLayout


class IndexedArrays(Protocol):
    """Arrays of integers that can be indexed and whose lengths are known, such as MegatronIndexedDataset."""

    document_lengths: np.ndarray
    """[documents] int64."""

    def __getitem__(self, document: int) -> np.ndarray:
        """Return one document: [length] of integers."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """Where to read, and how often."""

    shard: Shard = field(default_factory=Shard)
    shuffle_seed: int | None = None
    """None keeps documents and rows as they lie."""
    repeat: bool = True


@dataclass(frozen=True, slots=True)
class _Epoch:
    """One epoch's order of documents and rows."""

    number: int
    documents: np.ndarray
    """[documents] in the order they are laid end to end."""
    ends: np.ndarray
    """[documents] the position in the epoch behind each of them."""
    first_row: int
    """Number, counted over all epochs, of the first row that begins in this one."""
    rows: np.ndarray
    """[rows of this epoch] the order they are dealt in."""


class IndexedRows(Iterator[dict[str, Any]]):
    """The rows of one rank."""

    def __init__(self, arrays: IndexedArrays, layout: RowLayout, order: Order, name: str, limit: int) -> None:
        """limit: integers are below it.

        Raises ValueError if there is less than one row and the order repeats; otherwise there are just no rows.
        """
        assert order.repeat or order.shuffle_seed is None, "a single pass goes in order: its end is cut off"
        self.arrays, self.layout, self.order, self.name, self.limit = arrays, layout, order, name, limit
        self.lengths = np.asarray(arrays.document_lengths, dtype=np.int64)
        self.values_read = self.total = int(self.lengths.sum())
        self.stride = layout.row_length - layout.overlap
        self.position = 0
        self._epochs: dict[int, _Epoch] = {}
        self._origin = name
        if order.repeat and self.total < layout.row_length:
            raise ValueError(
                f"{name} holds {self.total} tokens, fewer than one row of {layout.row_length}: prepare more text, or "
                "lower model.context_length"
            )

    def __next__(self) -> dict[str, Any]:
        dealt = self.position * self.order.shard.size + self.order.shard.rank
        if not self.order.repeat and dealt * self.stride + self.layout.row_length > self.total:
            raise StopIteration
        self.position += 1
        epoch = self._epoch(dealt * self.stride // self.total)
        row = epoch.first_row + int(epoch.rows[dealt - epoch.first_row])
        return self.layout.make_row(self._read(row * self.stride))

    def _read(self, start: int) -> np.ndarray:
        """Read a row's integers from a position of the endless line."""
        pieces: list[np.ndarray] = []
        documents: list[int] = []
        missing, number = self.layout.row_length, 0
        while missing:
            number, inside = divmod(start, self.total)
            epoch = self._epoch(number)
            at = int(np.searchsorted(epoch.ends, inside, side="right"))
            document = int(epoch.documents[at])
            begin = inside - (int(epoch.ends[at]) - int(self.lengths[document]))
            piece = self.arrays[document][begin : begin + missing]
            pieces.append(piece)
            documents.append(document)
            start, missing = start + len(piece), missing - len(piece)
        self._origin = f"{self.name}, epoch {number}, documents {documents[0]} .. {documents[-1]}"
        row = np.concatenate(pieces)
        if row.min() < 0 or row.max() >= self.limit:
            self._refuse(pieces, documents)
        return row

    def _refuse(self, pieces: list[np.ndarray], documents: list[int]) -> None:
        """Name the document with an integer that should not be there."""
        for piece, document in zip(pieces, documents, strict=True):
            worst = piece.max() if piece.min() >= 0 else piece.min()
            if not 0 <= worst < self.limit:
                raise ValueError(
                    f"{self.name}: document {document} holds the token id {worst}, and the vocabulary has "
                    f"{self.limit}; the files were prepared with another tokenizer: prepare them with this one"
                )

    def _epoch(self, number: int) -> _Epoch:
        if number not in self._epochs:
            self._epochs = {n: epoch for n, epoch in self._epochs.items() if n >= number - 1}
            self._epochs[number] = self._make_epoch(number)
        return self._epochs[number]

    def _make_epoch(self, number: int) -> _Epoch:
        documents = self._permutation(len(self.lengths), number, 0)
        first_row, next_first_row = (-(-each * self.total // self.stride) for each in (number, number + 1))
        rows = self._permutation(next_first_row - first_row, number, 1)
        return _Epoch(number, documents, np.cumsum(self.lengths[documents]), first_row, rows)

    def _permutation(self, count: int, epoch: int, purpose: int) -> np.ndarray:
        if self.order.shuffle_seed is None:
            return np.arange(count)
        return np.random.default_rng([self.order.shuffle_seed, epoch, purpose]).permutation(count)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the size of what it is a position in."""
        return {"position": self.position, "total": self.total, "seed": self.order.shuffle_seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position; raises ValueError if the files or the seed are others."""
        own = {**self.state_dict(), "position": state["position"]}
        if state != own:
            raise ValueError(
                f"{self.name} has {self.total} tokens, shuffled with seed {self.order.shuffle_seed}; when the "
                f"checkpoint was saved it had {state['total']}, seed {state['seed']}, so its position there means "
                "nothing here; restore files and seed, or start a new run from the weights"
            )
        self.position = state["position"]

    def origin(self) -> str:
        """Name the documents of the last row."""
        return self._origin
