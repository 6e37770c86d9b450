"""Turn signals into a wish to stop: the first lets the step finish and be saved, the second aborts.

SIGINT    a person (Ctrl-C)                             saved, exit code 130
SIGTERM   a scheduler or host that wants its place back saved, exit code 75: resume me
SIGUSR1   Slurm's warning ahead of the time limit       saved, exit code 75: resume me

75 is EX_TEMPFAIL of sysexits.h: the same command, started again, goes on from here. Ctrl-C keeps the shell's 130, so
that a script which repeats the command while it answers 75 can be stopped by hand.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
RESUME_EXIT_CODE = 75
_REPEAT_WINDOW_S = 1.0


class Interrupted(BaseException):
    """Leave a block that may be left anywhere; not an Exception, so that nothing inside takes it for a failure."""

    def __init__(self, stop_signal: signal.Signals):
        super().__init__(stop_signal.name)
        self.signal = stop_signal


class StopSignals:
    """Listen for stop signals inside a `with` block.

    Handlers are installed explicitly, because a process started in the background inherits SIGINT ignored. A repeat
    within a second of the first is the same wish: launchers forward a signal that the terminal sent already.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._received_at_s = 0.0
        self._is_interruptible = False
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

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise Interrupted at once inside the block, also one that came before it.

        For what takes long and leaves nothing behind when it is cut short: compiling, evaluating.
        """
        self._is_interruptible = True
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._is_interruptible = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.received is None or (self.received is signal.SIGUSR1 and number != signal.SIGUSR1):
            # SIGUSR1 is a warning, and the SIGTERM that it warns of is no impatience.
            self.received, self._received_at_s = signal.Signals(number), now_s
        elif number != signal.SIGUSR1 and now_s - self._received_at_s > _REPEAT_WINDOW_S:
            os.write(2, b"second signal: aborting\n")
            os._exit(128 + number)  # not an exception: it could be caught, or wait for ranks that are gone
        if self._is_interruptible:
            self._is_interruptible = False
            raise Interrupted(self.received)
