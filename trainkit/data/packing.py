"""From arrays of integers to rows of one length, and from rows to batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainkit.data.encoding import Array
from trainkit.protocols import Batch

Row = dict[str, Tensor]
"""Named tensors: [row_length] each."""


class Arrays(Protocol):
    """An iterator of arrays that can be saved; `Encoded` is one."""

    epoch: int
    """Times the source of the last array had passed its end."""

    def __next__(self) -> Array:
        """Return the next array: [length] of any integer type."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position from which the next array follows."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        ...

    def origin(self) -> str:
        """Say in human words where the last array came from."""
        ...


class Rows(Protocol):
    """An iterator of rows of equal length, each a dictionary of tensors."""

    values_read: int
    """Integers taken from the source so far, to say how much a source that is too small holds."""

    def __next__(self) -> Row:
        """Return the next row: name -> [row_length]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position from which the next row follows."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        ...

    def origin(self) -> str:
        """Say where the last row came from."""
        ...


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How integers are cut into rows."""

    row_length: int
    overlap: int = 0
    """Integers that consecutive rows share: one lets every integer be the target of exactly one prediction."""
    separator: int | None = None
    """The integer that opens each document: rows then tell documents apart. None: they do not."""

    def __post_init__(self) -> None:
        assert 0 <= self.overlap < self.row_length

    def make_row(self, values: Array) -> Row:
        """Return a row of values [row_length], with "documents" [row_length] counting the documents from 0 or 1 on."""
        row = {"tokens": torch.from_numpy(values.astype(np.int64))}
        if self.separator is not None:
            row["documents"] = (row["tokens"] == self.separator).cumsum(0)
        return row


class PackedRows(Iterator[Row]):
    """Lay arrays end to end and cut rows."""

    def __init__(self, source: Arrays, layout: RowLayout) -> None:
        self.source, self.layout = source, layout
        self.remainder: Array = np.zeros(0, dtype=np.uint8)
        self.values_read, self.has_started = 0, False

    def __next__(self) -> Row:
        row_length = self.layout.row_length
        pieces, length = [self.remainder], len(self.remainder)
        while length < row_length:
            pieces.append(next(self.source))
            if not self.has_started and self.source.epoch > 0:
                self._refuse_short_source(length)
            length += len(pieces[-1])
            self.values_read += len(pieces[-1])
        self.has_started = True
        joined = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        self.remainder = joined[row_length - self.layout.overlap :]
        return self.layout.make_row(joined[:row_length])

    def _refuse_short_source(self, length: int) -> None:
        raise ValueError(
            f"the training data holds {length} tokens in this process's share, fewer than one row of "
            f"{self.layout.row_length}: give it more text, or lower model.context_length"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was read but not yet in a row, and the source's state."""
        return {
            "remainder": torch.from_numpy(self.remainder.astype(np.int64)),
            "has_started": self.has_started,
            "values_read": self.values_read,
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.remainder, self.has_started = state["remainder"].numpy(), state["has_started"]
        self.values_read = state["values_read"]
        self.source.load_state_dict(state["source"])

    def origin(self) -> str:
        """Name the last document of the last row."""
        return self.source.origin()


class PaddedRows(Iterator[Row]):
    """One array per row, cut at `row_length` or padded up to it; "valid" is False on padding."""

    def __init__(self, source: Arrays, row_length: int, pad: int) -> None:
        self.source, self.row_length, self.pad = source, row_length, pad
        self.values_read = 0

    def __next__(self) -> Row:
        values = next(self.source)[: self.row_length]
        self.values_read += len(values)
        tokens = np.full(self.row_length, self.pad, dtype=np.int64)
        valid = np.zeros(self.row_length, dtype=np.bool_)
        tokens[: len(values)], valid[: len(values)] = values, True
        return {"tokens": torch.from_numpy(tokens), "valid": torch.from_numpy(valid)}

    def state_dict(self) -> dict[str, Any]:
        """Return the source's state."""
        return {"values_read": self.values_read, "source": self.source.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.values_read = state["values_read"]
        self.source.load_state_dict(state["source"])

    def origin(self) -> str:
        """Name the last row's document."""
        return self.source.origin()


class Batches(Iterator[Batch]):
    """Stack rows: a BatchSource for the trainer. The last batch of a finite source may be smaller."""

    def __init__(self, rows: Rows, batch_size: int, name: str = "") -> None:
        """name: what the rows are made of, kept in the state: a position means nothing in another pipeline."""
        self.rows, self.batch_size, self.name = rows, batch_size, name
        self.first_origin = self.last_origin = ""

    def __next__(self) -> Batch:
        rows = []
        while len(rows) < self.batch_size:
            try:
                rows.append(next(self.rows))
            except StopIteration:
                break
            if len(rows) == 1:
                self.first_origin = self.rows.origin()
        if not rows:
            raise StopIteration
        self.last_origin = self.rows.origin()
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def state_dict(self) -> dict[str, Any]:
        """Return the rows' state and what they are made of."""
        return {"name": self.name, "rows": self.rows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; raises ValueError if another pipeline saved it."""
        if state.get("name") != self.name:
            raise ValueError(
                f"the checkpoint's position is one in {state.get('name', 'an older kind of pipeline')}, and this run "
                f"reads {self.name}; resume with the [data] of the run, or start a new run from its weights"
            )
        self.rows.load_state_dict(state["rows"])

    def origin(self) -> str:
        """Say which documents the last batch came from."""
        if self.first_origin == self.last_origin:
            return self.last_origin
        return f"{self.first_origin} .. {self.last_origin}"
