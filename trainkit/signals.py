"""Turn SIGINT and SIGTERM into a wish to stop: the first lets the step finish and be saved, the second aborts."""

import os
import signal
import threading
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_WINDOW_S = 1.0


class StopSignals:
    """Listen for stop signals inside a `with` block.

    Handlers are installed explicitly, because a process started in the background inherits SIGINT ignored. A repeat
    within a second of the first is the same wish: launchers forward a signal that the terminal sent already.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._received_at_s = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.received is not None:
            return  # keep ignoring the repeat, which would otherwise kill the process while it ends in good order
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.received is None:
            self.received, self._received_at_s = signal.Signals(number), now_s
        elif now_s - self._received_at_s > _REPEAT_WINDOW_S:
            os.write(2, b"second signal: aborting\n")
            os._exit(128 + number)  # not an exception: it could be caught, or wait for ranks that are gone
