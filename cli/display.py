"""Text that changes in place on a terminal: appended to where it grew, redrawn where it changed."""

import shutil
import unicodedata
from typing import TextIO

CLEAR_BELOW = "\033[J"


class LiveText:
    """One block of text at the bottom of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.shown = ""

    def show(self, text: str) -> None:
        """Make the block read `text`; of a text taller than the terminal, its last lines."""
        # A character whose bytes are not all there yet shows as a replacement mark: hold it back.
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        columns, lines = shutil.get_terminal_size()
        if text.startswith(self.shown):
            self.stream.write(text[len(self.shown) :])
            self.shown = text
        else:
            # The cursor cannot go above the top of the screen: a taller block could not be drawn over again.
            visible = "\n".join(wrap(text, columns)[-(lines - 1) :])
            self._replace(text if len(wrap(text, columns)) < lines else visible, columns, lines)
        self.stream.flush()

    def finish(self, text: str) -> None:
        """Make the block read `text` for good, and begin a new line."""
        if not text.startswith(self.shown):
            self._replace(text, *shutil.get_terminal_size())
        else:
            self.stream.write(text[len(self.shown) :])
        self.stream.write("\n")
        self.stream.flush()
        self.shown = ""

    def _replace(self, text: str, columns: int, lines: int) -> None:
        above = min(len(wrap(self.shown, columns)), lines) - 1
        self.stream.write("\r" + (f"\033[{above}A" if above else "") + CLEAR_BELOW + text)
        self.shown = text


def wrap(text: str, columns: int) -> list[str]:
    """Cut a text into lines where a terminal of that width does; never empty."""
    rows = []
    for line in text.split("\n"):
        row, width = "", 0
        for character in line:
            if width + display_width(character) > columns:
                rows.append(row)
                row, width = "", 0
            row, width = row + character, width + display_width(character)
        rows.append(row)
    return rows


def display_width(character: str) -> int:
    """Return the columns a character takes: none if it combines, two if it is wide (Unicode UAX 11)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
