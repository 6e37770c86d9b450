"""Results of an experiment: lines of JSON, one per measurement, so that an interrupted experiment goes on.

What the runs of several seeds say is shown as their mean and the standard error of that mean.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("docs/experiments")


@dataclass(frozen=True, slots=True)
class Options:
    """What every experiment's script can be asked."""

    seeds: int
    is_large: bool
    is_plot_only: bool


def parse_options(purpose: str) -> Options:
    """Read the command line of an experiment."""
    parser = argparse.ArgumentParser(description=purpose, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=3, help="independent repetitions (3)")
    parser.add_argument("--large", action="store_true", help="a bigger model and more steps: wants a GPU or patience")
    parser.add_argument(
        "--plot-only", action="store_true", help="draw the figure again from the results that are there"
    )
    options = parser.parse_args()
    return Options(options.seeds, options.large, options.plot_only)


class Records:
    """The measurements of one experiment, in docs/experiments/NAME.jsonl."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / f"{name}.jsonl"
        self.lines: list[dict[str, Any]] = []
        if self.path.exists():
            self.lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def holds(self, **keys: Any) -> bool:
        """Tell whether a run with these keys is there already."""
        return bool(self.select(**keys))

    def select(self, **keys: Any) -> list[dict[str, Any]]:
        """Return the measurements that have these keys."""
        return [line for line in self.lines if keys.items() <= line.items()]

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep the measurements of a finished run; those of an interrupted one were never added."""
        added = [dict(line) for line in lines]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in added)
        self.lines += added


@dataclass(frozen=True, slots=True)
class Point:
    """Several seeds' measurements at one place."""

    x: float
    mean: float
    error: float
    """Standard error of the mean over seeds; 0 for one seed."""
    count: int


def average(lines: Sequence[Mapping[str, Any]], x: str, y: str, by: str | None = None) -> list[Point]:
    """Average y over the lines of one place, in the order of x; lines without y are left out.

    by: what makes a place, x by default; if it is something else, x is averaged as well.
    """
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for line in lines:
        if y in line:
            groups.setdefault(line[by or x], []).append(line)
    points = []
    for group in groups.values():
        values = [line[y] for line in group]
        place = statistics.mean(line[x] for line in group)
        points.append(Point(place, statistics.mean(values), standard_error(values), len(values)))
    return sorted(points, key=lambda point: point.x)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
