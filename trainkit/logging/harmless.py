"""What may fail without harm."""

import warnings
from types import TracebackType


class Harmless:
    """Turn any failure inside the block into one warning line.

    Deliberately broad: it guards what accompanies training and must never end it, whatever the reason.
    """

    def __init__(self, message: str):
        self.message = message
        self.has_failed = False

    def __enter__(self) -> "Harmless":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        self.has_failed = True
        warnings.warn(f"{self.message} ({type(error).__name__}: {error})", stacklevel=2)
        return True
