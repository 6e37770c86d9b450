"""What a sampler starts from: a row of tokens, some given, some open.

"Once upon a time"  to 8 tokens      <end> Once  upon  a  time  OPEN OPEN OPEN
"Once {mask:2} a {mask:1}."          <end> Once  OPEN OPEN  a  OPEN  .
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

OPEN = -1
"""Stands for a token to be found."""
MASKS_PATTERN = re.compile(r"\{mask:(\d+)\}")


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """One row to fill."""

    tokens: np.ndarray
    """int64 [positions]: OPEN or a token id."""
    earliest_end: int = 0
    """Positions before this one never become an end-of-text token."""

    @classmethod
    def continuing(cls, prompt: Sequence[int] | np.ndarray, total_length: int, min_new_tokens: int = 0) -> Self:
        """Open everything behind a prompt, up to total_length tokens."""
        tokens = np.full(max(total_length, len(prompt)), OPEN, np.int64)
        tokens[: len(prompt)] = prompt
        return cls(tokens, len(prompt) + min_new_tokens)

    @classmethod
    def with_holes(cls, tokens: Sequence[int] | np.ndarray) -> Self:
        """Take given and OPEN tokens as they are; the text does not end before its last given token."""
        tokens = np.array(tokens, np.int64)
        given = np.flatnonzero(tokens != OPEN)
        return cls(tokens, int(given[-1]) + 1 if len(given) else 0)

    @property
    def is_open(self) -> np.ndarray:
        """Where a token is to be found, bool [positions]."""
        return self.tokens == OPEN

    @property
    def beginning(self) -> int:
        """The number of tokens before the first open one."""
        return int(self.is_open.argmax()) if self.num_open else len(self.tokens)

    @property
    def num_open(self) -> int:
        """The number of tokens to be found."""
        return int(self.is_open.sum())


def split_template(template: str) -> list[str | int]:
    """Cut "Once {mask:2} a" into ["Once ", 2, " a"]; raises ValueError if nothing is masked."""
    pieces = MASKS_PATTERN.split(template)
    if len(pieces) == 1:
        raise ValueError(
            f'the template "{template}" has nothing to fill in; write {{mask:8}} where 8 tokens are missing'
        )
    parts = [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)]
    if 0 in parts:
        raise ValueError(f'the template "{template}" has a {{mask:0}}; mask at least one token, or leave it out')
    return [part for part in parts if part != ""]


def open_positions(tokens: np.ndarray, positions: Collection[int]) -> np.ndarray:
    """Open some positions of a row, counted from 0 for the token after the start-of-document token.

    Raises ValueError if a position is not there.
    """
    beyond = sorted(position for position in positions if not 0 <= position < len(tokens) - 1)
    if beyond:
        raise ValueError(
            f"mask_positions {beyond} lie outside the prompt's {len(tokens) - 1} tokens; count from 0, below that"
        )
    opened = tokens.copy()
    opened[[position + 1 for position in positions]] = OPEN
    return opened
