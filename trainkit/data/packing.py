"""From arrays of integers to rows of one length, and from rows to batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainkit.data.documents import Documents
from trainkit.protocols import Batch

Array = np.ndarray
"""[length] of any integer type."""


class Encoded(Iterator[Array]):
    """Turn each document of a source into an array of integers."""

    def __init__(self, source: Documents[Any], encode: Callable[[Any], Sequence[int] | Array]) -> None:
        self.source, self.encode = source, encode

    @property
    def epoch(self) -> int:
        """Times the source has passed its end."""
        return self.source.epoch

    def __next__(self) -> Array:
        return np.asarray(self.encode(next(self.source)), dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Return the source's state."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.source.load_state_dict(state)

    def origin(self) -> str:
        """Name the last document."""
        return self.source.origin()


class Rows(Protocol):
    """An iterator of rows of equal length, each a dictionary of tensors."""

    def __next__(self) -> dict[str, Tensor]:
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


class PackedRows(Iterator[dict[str, Tensor]]):
    """Lay arrays end to end and cut rows of `row_length`; consecutive rows share `overlap` integers.

    An overlap of one lets every integer be the target of exactly one prediction from the one before it.
    """

    def __init__(self, source: Documents[Array], row_length: int, overlap: int = 0) -> None:
        assert 0 <= overlap < row_length
        self.source, self.row_length, self.overlap = source, row_length, overlap
        self.remainder = np.zeros(0, dtype=np.int64)
        self.has_started = False

    def __next__(self) -> dict[str, Tensor]:
        pieces, length = [self.remainder], len(self.remainder)
        while length < self.row_length:
            pieces.append(next(self.source))
            length += len(pieces[-1])
            if not self.has_started and self.source.epoch > 0:
                self._refuse_short_source(length - len(pieces[-1]))
        self.has_started = True
        joined = np.concatenate(pieces)
        self.remainder = joined[self.row_length - self.overlap :]
        return {"tokens": torch.from_numpy(joined[: self.row_length].copy())}

    def _refuse_short_source(self, length: int) -> None:
        raise ValueError(
            f"{self.source.origin().split(',')[0]} holds {length} tokens in this process's share, fewer than one row "
            f"of {self.row_length}: give it more text, or lower model.context_length"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was read but not yet in a row, and the source's state."""
        return {
            "remainder": torch.from_numpy(self.remainder.copy()),
            "has_started": self.has_started,
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.remainder, self.has_started = state["remainder"].numpy(), state["has_started"]
        self.source.load_state_dict(state["source"])

    def origin(self) -> str:
        """Name the last document of the last row."""
        return self.source.origin()


class PaddedRows(Iterator[dict[str, Tensor]]):
    """One array per row, cut at `row_length` or padded up to it; "valid" is False on padding."""

    def __init__(self, source: Documents[Array], row_length: int, pad: int) -> None:
        self.source, self.row_length, self.pad = source, row_length, pad

    def __next__(self) -> dict[str, Tensor]:
        values = next(self.source)[: self.row_length]
        tokens = torch.full((self.row_length,), self.pad, dtype=torch.int64)
        tokens[: len(values)] = torch.from_numpy(values)
        return {"tokens": tokens, "valid": torch.arange(self.row_length) < len(values)}

    def state_dict(self) -> dict[str, Any]:
        """Return the source's state."""
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.source.load_state_dict(state)

    def origin(self) -> str:
        """Name the last row's document."""
        return self.source.origin()


class Batches(Iterator[Batch]):
    """Stack rows: a BatchSource for the trainer. The last batch of a finite source may be smaller."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size
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
        """Return the rows' state."""
        return self.rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.rows.load_state_dict(state)

    def origin(self) -> str:
        """Say which documents the last batch came from."""
        if self.first_origin == self.last_origin:
            return self.last_origin
        return f"{self.first_origin} .. {self.last_origin}"
