"""The results of a sweep as one self-contained HTML page with a plot of quality against cost."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarking.sweep import Result

DATA_MARK = "/*DATA*/"


def write_pareto_page(results: Sequence[Result], facts: Mapping[str, Any], path: Path | str) -> None:
    """Write the page.

    facts: what all combinations share (checkpoint, machine, number of texts), shown above the plot.
    """
    data = {
        "facts": dict(facts),
        "results": [{"values": dict(each.values), **each.to_dict()} for each in results],
    }
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    template = files("benchmarking").joinpath("pareto_page.html").read_text(encoding="utf-8")
    Path(path).write_text(template.replace(DATA_MARK, text), encoding="utf-8")
