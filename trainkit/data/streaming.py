"""Corpora that can only be read from their beginning: one pass after the other, and what to do when the line drops."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from trainkit.data.documents import Record, Shard, refuse_if_repeating

Report = Callable[[str], None]


class Pass(Protocol):
    """One pass over a corpus that knows its position; `datasets.IterableDataset` wrapped, or FileRecords."""

    def __iter__(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (place, payload, problem) from the position on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position reached by the iterator in use."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iterator start from there."""
        ...

    def bytes_done(self) -> int:
        """Return how far the pass is, for progress bars; 0 if that is not known."""
        ...


class StreamedRecords(Iterator[Record]):
    """The records of a corpus that can only be read from its beginning, opened anew for every epoch.

    Each rank reads everything and keeps its share. Records of others are passed over before they are decoded, which
    costs little beside encoding one's own.
    """

    def __init__(
        self, open_pass: Callable[[], Pass], name: str, shard: Shard | None = None, repeat: bool = True
    ) -> None:
        self.open_pass, self.name, self.repeat = open_pass, name, repeat
        self.shard = shard or Shard()
        self.epoch, self.dealt, self.read_in_epoch = 0, 0, 0
        self._pass: Pass | None = None
        self._iterator: Iterator[tuple[str, Any, str]] = iter(())

    def __next__(self) -> Record:
        while True:
            place, payload, problem = self._read()
            is_mine = self.dealt % self.shard.size == self.shard.rank
            self.dealt += 1
            if is_mine:
                return Record(self.epoch, place, payload, problem)

    def _read(self) -> tuple[str, Any, str]:
        if self._pass is None:
            self._open(None)
        for item in self._iterator:
            self.read_in_epoch += 1
            return item
        if self.read_in_epoch == 0:
            refuse_if_repeating(self.repeat, self.name)
        if not self.repeat:
            raise StopIteration
        self.epoch, self.read_in_epoch = self.epoch + 1, 0
        self._open(None)
        return self._read()

    def _open(self, state: dict[str, Any] | None) -> None:
        self._pass = self.open_pass()
        if state is not None:
            self._pass.load_state_dict(state)
        self._iterator = iter(self._pass)

    def state_dict(self) -> dict[str, Any]:
        """Return the pass's own position, the epoch, and the records dealt so far to all ranks."""
        position = None if self._pass is None else self._pass.state_dict()
        return {"epoch": self.epoch, "dealt": self.dealt, "read_in_epoch": self.read_in_epoch, "pass": position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.epoch, self.dealt, self.read_in_epoch = state["epoch"], state["dealt"], state["read_in_epoch"]
        self._pass = None
        if state["pass"] is not None:
            self._open(state["pass"])

    def bytes_done(self) -> int:
        """Return how far this pass is, for progress bars."""
        return 0 if self._pass is None else self._pass.bytes_done()


class Resumable(Protocol):
    """What RetriedPass needs of a dataset; `datasets.IterableDataset` has it."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position reached by the iterator in use."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iterator start from there."""
        ...


@dataclass(slots=True)
class Retry:
    """Wait for errors that pass by themselves, twice as long after each failure in a row."""

    errors: tuple[type[Exception], ...]
    """Those that are worth a look."""
    is_transient: Callable[[Exception], bool]
    """Tells which of them pass."""
    report: Report
    max_failures: int = 6
    """In a row, before the error is raised."""
    first_wait_s: float = 1.0
    failures: int = 0

    def wait(self, error: Exception, what: str) -> None:
        """Wait before the next attempt; raises the error itself if it will not pass, or has come too often."""
        self.failures += 1
        if not self.is_transient(error) or self.failures > self.max_failures:
            raise error
        wait_s = self.first_wait_s * 2 ** (self.failures - 1)
        self.report(f"{what}: {error}; trying again in {wait_s:g} s ({self.failures} of {self.max_failures})")
        time.sleep(wait_s)

    def call(self, function: Callable[[], Any], what: str) -> Any:
        """Return what a function returns, calling it again while its errors are transient."""
        while True:
            try:
                return function()
            except self.errors as error:
                self.wait(error, what)


class RetriedPass:
    """One pass over a remote dataset: when it cannot be read, it is opened again where it stopped."""

    def __init__(
        self,
        open_dataset: Callable[[], Resumable],
        check: Callable[[Any], tuple[Any, str]],
        name: str,
        retry: Retry,
    ) -> None:
        """check: record -> (payload, problem)."""
        self.open_dataset, self.check, self.name, self.retry = open_dataset, check, name, retry
        self.dataset = retry.call(open_dataset, name)
        self.number = 0
        self._loaded: dict[str, Any] | None = None  # a dataset does not know its position until it is read

    def __iter__(self) -> Iterator[tuple[str, Any, str]]:
        iterator = None
        while True:
            try:
                iterator = iter(self.dataset) if iterator is None else iterator
                record = next(iterator)
            except StopIteration:
                return
            except self.retry.errors as error:
                position = self.state_dict()
                self.retry.wait(error, self.name)
                self.dataset = self.retry.call(self.open_dataset, self.name)
                self.load_state_dict(position)
                iterator = None
                continue
            self.retry.failures, self._loaded = 0, None
            self.number += 1
            yield f"{self.name}, record {self.number}", *self.check(record)

    def state_dict(self) -> dict[str, Any]:
        """Return the dataset's own position and the number of records read."""
        position = self.dataset.state_dict() if self._loaded is None else self._loaded
        return {"number": self.number, "dataset": position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position."""
        self.number, self._loaded = state["number"], state["dataset"]
        self.dataset.load_state_dict(state["dataset"])

    def bytes_done(self) -> int:
        """Nobody knows how much there is."""
        return 0
