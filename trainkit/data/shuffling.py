"""A shuffle whose buffer is part of its state."""

import random
from collections.abc import Iterator
from typing import Any

from trainkit.data.documents import Record, Records


class Shuffled(Iterator[Record]):
    """Draw the next record at random from a buffer of the next `buffer_size` ones.

    The buffer runs empty at the end of each epoch before the next one enters it, so that every epoch holds every
    document once. Unlike a buffer inside a dataset library, this one is saved: resuming neither loses the documents
    in it nor sees them twice.
    """

    def __init__(self, source: Records, buffer_size: int, seed: int) -> None:
        self.source, self.buffer_size = source, buffer_size
        self.rng = random.Random(seed)
        self.epoch = 0
        # Plain tuples, which a checkpoint can hold: copying the list is then all that a snapshot takes.
        self.buffer: list[tuple] = []
        self.next_epoch: list[tuple] = []  # its first record, while this epoch's buffer runs empty

    def __next__(self) -> Record:
        self._fill()
        if not self.buffer and self.next_epoch:
            self.buffer, self.next_epoch = self.next_epoch, []
            self.epoch = self.buffer[0][0]
            self._fill()
        if not self.buffer:
            raise StopIteration
        # Swap with the end: removing from the middle of a list would cost its length.
        chosen = self.rng.randrange(len(self.buffer))
        self.buffer[chosen], self.buffer[-1] = self.buffer[-1], self.buffer[chosen]
        return Record(*self.buffer.pop())

    def _fill(self) -> None:
        while len(self.buffer) < self.buffer_size and not self.next_epoch:
            try:
                record = next(self.source)
            except StopIteration:
                return
            if not self.buffer and record.epoch > self.epoch:
                self.epoch = record.epoch  # more ranks than documents: this rank has none of some epochs
            target = self.buffer if record.epoch == self.epoch else self.next_epoch
            target.append(tuple(record))

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer, the random state and the source's state."""
        return {
            "epoch": self.epoch,
            "buffer": list(self.buffer),
            "next_epoch": list(self.next_epoch),
            "rng": self.rng.getstate(),
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.epoch, self.buffer, self.next_epoch = state["epoch"], list(state["buffer"]), list(state["next_epoch"])
        version, internal, gauss_next = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss_next))
        self.source.load_state_dict(state["source"])
