"""Make batches in the background, while the last ones are trained on.

    background thread    next(source) -> (batch, state behind it, origin) -> queue of `depth`
    training thread                                                          queue -> batch

Every batch brings the state of the source behind it, so the state of this stage is that of the last batch handed out:
batches that wait in the queue when a checkpoint is saved are made again after a resume, and no batch is lost.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from trainkit.protocols import Batch, BatchSource

POLL_S = 0.1


class _Made(NamedTuple):
    batch: Batch
    state: dict[str, Any]
    origin: str


class Prefetched(Iterator[Batch]):
    """Run a source up to `depth` batches ahead of who takes them."""

    def __init__(self, source: BatchSource, depth: int, pin_memory: bool = False) -> None:
        """pin_memory: put batches where a GPU can fetch them without the processor."""
        assert depth > 0
        self.source, self.depth, self.pin_memory = source, depth, pin_memory
        self._state: dict[str, Any] | None = None
        self._origin = ""
        self._queue: queue.Queue[_Made | BaseException] = queue.Queue(depth)
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __next__(self) -> Batch:
        if self._thread is None:
            self._start()
        made = self._queue.get()
        if isinstance(made, BaseException):
            self._queue.put(made)  # whoever asks again is told again
            raise made
        self._state, self._origin = made.state, made.origin
        return made.batch

    def _start(self) -> None:
        """Begin to read ahead: only now, so that nothing is read before a resumed run has loaded its state."""
        if self._state is None:
            self._state = self.source.state_dict()
        else:
            self.source.load_state_dict(self._state)  # go back to what was read ahead before close()
        self._is_closed, self._queue = threading.Event(), queue.Queue(self.depth)
        self._thread = threading.Thread(target=self._produce, args=(self._is_closed,), name="prefetch", daemon=True)
        self._thread.start()

    def _produce(self, is_closed: threading.Event) -> None:
        made: _Made | BaseException
        while not is_closed.is_set():
            try:
                batch = next(self.source)
                if self.pin_memory:
                    batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
                made = _Made(batch, self.source.state_dict(), self.source.origin())
            except BaseException as error:  # handed to the training thread, which raises it
                made = error
            self._put(made, is_closed)
            if isinstance(made, BaseException):
                return

    def _put(self, made: _Made | BaseException, is_closed: threading.Event) -> None:
        while not is_closed.is_set():
            try:
                self._queue.put(made, timeout=POLL_S)
            except queue.Full:
                continue
            return

    def close(self) -> None:
        """Stop the thread; what it made and nobody took is made again if more is asked for."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def state_dict(self) -> dict[str, Any]:
        """Return the source's state behind the last batch that was taken."""
        return self.source.state_dict() if self._state is None else self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.close()
        self.source.load_state_dict(state)
        self._state = None

    def origin(self) -> str:
        """Say where the last batch taken came from."""
        return self._origin
