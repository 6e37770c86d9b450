"""The record of a generation: what was given, and every change after it. Replaying the changes gives the rows back.

{"format": 1, "mode": "diffusion", "mask_id": 4095, "rows": [
    {"prompt": "Once", "canvas": [0, 812, -1, -1], "changes": [[step, position, token, log p, time], ...]}]}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.decoded import Change
from transformerlm.tokenizer import Tokenizer

FORMAT = 1


@dataclass(slots=True)
class TracedRow:
    """One text on its way."""

    prompt: str
    canvas: tuple[int, ...]
    """What it began with: token ids, and OPEN."""
    changes: list[Change] = field(default_factory=list)

    def at(self, num_changes: int) -> list[int]:
        """Return the tokens after the first so many changes; OPEN where none is."""
        tokens = list(self.canvas)
        for change in self.changes[:num_changes]:
            tokens[change.position] = change.token
        return tokens


@dataclass(slots=True)
class Trace:
    """Every row of a generation."""

    mode: str
    mask_id: int
    """The token of a masked position; OPEN for a model without masks."""
    rows: list[TracedRow] = field(default_factory=list)
    ignore_eos: bool = False
    """Whether texts went on behind end-of-text tokens."""

    def begin(self, prompts: Sequence[str], canvases: Sequence[Canvas]) -> int:
        """Add rows that are about to be generated; returns the index of the first."""
        first = len(self.rows)
        self.rows += [
            TracedRow(prompt, tuple(canvas.tokens.tolist())) for prompt, canvas in zip(prompts, canvases, strict=True)
        ]
        return first

    def replay(self, row: int, num_changes: int | None = None) -> list[int]:
        """Return a row after its first changes (all by default), OPEN where no token is."""
        traced = self.rows[row]
        tokens = traced.at(len(traced.changes) if num_changes is None else num_changes)
        return [OPEN if token == self.mask_id else token for token in tokens]

    def text(self, row: int, tokenizer: Tokenizer) -> str:
        """Return a row's text behind its start-of-document token, as far as the end-of-text token that ended it."""
        tokens = self.replay(row)
        is_given = [token != OPEN for token in self.rows[row].canvas]
        end_id = None if self.ignore_eos else tokenizer.end_of_text_id
        ends = [
            position
            for position, token in enumerate(tokens)
            if token == OPEN or (token == end_id and not is_given[position])
        ]
        return tokenizer.decode(tokens[1 : ends[0] if ends else len(tokens)])

    def save(self, path: Path | str) -> None:
        """Write the trace as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as plain values, a list per change."""
        rows = [
            {
                "prompt": row.prompt,
                "canvas": list(row.canvas),
                "changes": [
                    [change.step, change.position, change.token, round(change.log_prob, 6), change.time]
                    for change in row.changes
                ],
            }
            for row in self.rows
        ]
        return {
            "format": FORMAT,
            "mode": self.mode,
            "mask_id": self.mask_id,
            "ignore_eos": self.ignore_eos,
            "rows": rows,
        }

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a trace; raises ValueError if the file is not one."""
        try:
            written = json.loads(Path(path).read_text(encoding="utf-8"))
            if written["format"] != FORMAT:
                raise ValueError(f"{path}: format {written['format']}, this version reads format {FORMAT}")
            rows = [
                TracedRow(
                    row["prompt"],
                    tuple(row["canvas"]),
                    [Change(index, *change) for change in row["changes"]],
                )
                for index, row in enumerate(written["rows"])
            ]
            return cls(written["mode"], written["mask_id"], rows, written.get("ignore_eos", False))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not a trace ({error}); write one with transformerlm-infer --trace") from error
