"""Text that changes in place on a terminal: appended to where it grew, redrawn where it changed."""

import shutil
from typing import TextIO

CLEAR_BELOW = "\033[J"


class LiveText:
    """One block of text at the bottom of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.shown = ""

    def show(self, text: str) -> None:
        """Make the block read `text`."""
        # A character whose bytes are not all there yet shows as a replacement mark: hold it back.
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        if text.startswith(self.shown):
            self.stream.write(text[len(self.shown) :])
        else:
            self.stream.write(self._to_start() + CLEAR_BELOW + text)
        self.stream.flush()
        self.shown = text

    def finish(self, text: str) -> None:
        """Make the block read `text` for good, and begin a new line."""
        self.show(text)
        self.stream.write("\n")
        self.stream.flush()
        self.shown = ""

    def _to_start(self) -> str:
        """Return the escape sequence from the end of the block to its beginning."""
        width = shutil.get_terminal_size().columns
        lines = self.shown.split("\n")
        # A line of exactly the terminal's width leaves the cursor on it, not on the next one.
        above = len(lines) - 1 + sum((max(len(line), 1) - 1) // width for line in lines)
        return "\r" + (f"\033[{above}A" if above else "")
