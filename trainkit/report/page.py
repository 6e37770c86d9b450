"""Pages of their own: one HTML file that holds its style, its script and its data, and asks no network for anything."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

_ROOM = files("trainkit.report")


def write_page(path: Path, template: str, data: Mapping[str, Any]) -> None:
    """Write the page that `template` makes of `data`, replacing an older one in one atomic step."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(render_page(template, data), encoding="utf-8")
    os.replace(temporary, path)


def render_page(template: str, data: Mapping[str, Any]) -> str:
    """Return the HTML; numbers that are not finite become null."""
    # "</script>" inside a string would end the script, and "<!--" would open a comment in it.
    text = json.dumps(to_plain(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )
    parts = {"/*CSS*/": _read("page.css"), "/*CHARTS*/": _read("chart.js"), "/*DATA*/": text}
    page = _read(template)
    for mark, content in parts.items():
        before, _, after = page.partition(mark)
        page = before + content + after
    return page


def to_plain(value: Any) -> Any:
    """Return the value as JSON has it: floats with six digits, null where they are not finite."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain(item) for item in value]
    return value


def _read(name: str) -> str:
    return _ROOM.joinpath(name).read_text(encoding="utf-8")
