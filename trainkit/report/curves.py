"""The curves of a run, read from its metrics.jsonl and thinned to what a page can show."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_POINTS = 1500

Table = dict[str, list[Any]]
"""Columns of equal length by name; None where a record lacks the key."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What a run recorded."""

    steps: Table
    evaluations: Table
    num_steps: int
    """Recorded steps, of which `steps` may hold fewer."""


def read_curves(path: Path, max_points: int = MAX_POINTS) -> Curves:
    """Read metrics.jsonl; a file that is missing, or a line that was cut short, holds no records."""
    records = read_records(path)
    steps = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "validation_loss" in record]
    return Curves(to_table(thin(steps, "loss", max_points)), to_table(evaluations), len(steps))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def thin(records: list[dict[str, Any]], key: str, max_points: int) -> list[dict[str, Any]]:
    """Keep at most `max_points` records: of each stretch the one with the lowest and the one with the highest `key`.

    A mean would hide the spikes, which are what one looks for. The last record is always kept.
    """
    if len(records) <= max_points:
        return records
    stretches = max_points // 2
    kept: dict[int, dict[str, Any]] = {len(records) - 1: records[-1]}
    for index in range(stretches):
        span = range(index * len(records) // stretches, (index + 1) * len(records) // stretches)
        known = sorted((records[place][key], place) for place in span if records[place].get(key) is not None)
        for _, place in (known[0], known[-1]) if known else ((None, span[0]),):
            kept[place] = records[place]
    return [kept[place] for place in sorted(kept)]


def to_table(records: Iterable[dict[str, Any]]) -> Table:
    """Turn records into columns."""
    records = list(records)
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}
