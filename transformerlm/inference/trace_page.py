"""A trace as one self-contained HTML page: no network, no other files."""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformerlm.inference.canvas import OPEN
from transformerlm.inference.decoded import Change
from transformerlm.inference.trace import Trace
from transformerlm.tokenizer import Tokenizer

DATA_MARK, END_SIGN = "/*DATA*/", "[end]"


def write_page(trace: Trace, tokenizer: Tokenizer, path: Path | str, title: str = "A generation, step by step") -> None:
    """Write the page that shows a trace."""
    Path(path).write_text(render_page(trace, tokenizer, title), encoding="utf-8")


def render_page(trace: Trace, tokenizer: Tokenizer, title: str) -> str:
    """Return the page as HTML."""
    rows = [
        {
            "prompt": row.prompt,
            "given": [None if token == OPEN else piece(tokenizer, token) for token in row.canvas],
            "steps": group_by_step(trace, row.changes, tokenizer),
        }
        for row in trace.rows
    ]
    data = {"title": title, "mode": trace.mode, "end": END_SIGN, "goesOn": trace.ignore_eos, "rows": rows}
    # "</script>" inside a string would end the script.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    template = files("transformerlm.inference").joinpath("trace_page.html").read_text(encoding="utf-8")
    return template.replace(DATA_MARK, text)


def group_by_step(trace: Trace, changes: Sequence[Change], tokenizer: Tokenizer) -> list[list[list[Any]]]:
    """Return for each step its changes as [position, text or null for a mask, probability]."""
    steps: dict[int, list[list[Any]]] = {}
    for change in changes:
        is_masked = change.token == trace.mask_id
        shown = [None, 0.0] if is_masked else [piece(tokenizer, change.token), round(math.exp(change.log_prob), 4)]
        steps.setdefault(change.step, []).append([change.position, *shown])
    return [steps[step] for step in sorted(steps)]


def piece(tokenizer: Tokenizer, token: int) -> str:
    """Return what a token looks like on the page: its text, a sign for the end of a text."""
    return END_SIGN if token == tokenizer.end_of_text_id else tokenizer.decode([token])
