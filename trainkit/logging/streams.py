"""Output streams whose reader went away."""

import os
from contextlib import suppress
from typing import TextIO


def silence(stream: TextIO) -> None:
    """Send the rest of a stream nowhere, also what is in its buffer and would fail again when Python exits."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # a stream in memory has no descriptor
        os.dup2(nowhere.fileno(), stream.fileno())
