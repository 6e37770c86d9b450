"""What a generation tells while it runs: text as it appears, stop strings, the trace."""

from collections.abc import Callable, Collection, Sequence

from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.decoded import Change
from transformerlm.inference.trace import Trace
from transformerlm.tokenizer import Tokenizer

MASK_SIGN = "░"
UpdateCallback = Callable[[int, str], None]
"""Called with (row, everything behind its given beginning so far)."""


class Watcher:
    """A decoder's listener: follows every row through its changes."""

    def __init__(
        self, tokenizer: Tokenizer, canvases: Sequence[Canvas], end_id: int | None, *, shows_masks: bool
    ) -> None:
        self.tokenizer, self.end_id, self.shows_masks = tokenizer, end_id, shows_masks
        self.beginnings = [canvas.beginning for canvas in canvases]
        self.is_given = [(~canvas.is_open).tolist() for canvas in canvases]
        self.tokens = [canvas.tokens.tolist() for canvas in canvases]
        self.stop: tuple[str, ...] = ()
        self.on_update: UpdateCallback | None = None
        self.trace: Trace | None = None
        self.first_row = 0
        """Of the trace: where this batch begins."""

    @property
    def is_needed(self) -> bool:
        """Whether anybody wants to know; a decoder without a listener never waits for the device."""
        return bool(self.stop) or self.on_update is not None or self.trace is not None

    def __call__(self, changes: Sequence[Change]) -> Collection[int]:
        """Follow a step; returns the rows whose settled text holds a stop string."""
        mask_id = self.tokenizer.mask_id
        for change in changes:
            self.tokens[change.row][change.position] = OPEN if change.token == mask_id else change.token
            if self.trace is not None:
                self.trace.rows[self.first_row + change.row].changes.append(change)
        rows = sorted({change.row for change in changes})
        if self.on_update is not None:
            for row in rows:
                self.on_update(row, self.show(row))
        return [row for row in rows if self.stop and any(stop in self.settled_text(row) for stop in self.stop)]

    def settled_text(self, row: int) -> str:
        """Return what stands firmly behind the beginning: up to the first open position or end of text."""
        return self.tokenizer.decode(
            settled_tokens(self.tokens[row], self.is_given[row], self.beginnings[row], self.end_id)
        )

    def show(self, row: int) -> str:
        """Return the text behind the beginning, with a sign for each mask and nothing from a drawn end on."""
        if not self.shows_masks:
            return cut_at_stop(self.settled_text(row), self.stop)
        text, known = "", []
        for position, token in enumerate(self.tokens[row]):
            if position < self.beginnings[row]:
                continue
            if token == self.end_id and not self.is_given[row][position]:
                break
            if token == OPEN:
                text += self.tokenizer.decode(known) + MASK_SIGN
                known = []
            else:
                known.append(token)
        return text + self.tokenizer.decode(known)


def settled_tokens(tokens: Sequence[int], is_given: Sequence[bool], beginning: int, end_id: int | None) -> list[int]:
    """Return the tokens behind the beginning, up to the first open one or drawn end of text, exclusive."""
    settled = []
    for token, is_token_given in zip(tokens[beginning:], is_given[beginning:], strict=False):
        if token == OPEN or (token == end_id and not is_token_given):
            break
        settled.append(token)
    return settled


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Cut a text before the first stop string in it."""
    ends = [text.index(string) for string in stop if string in text]
    return text[: min(ends)] if ends else text
