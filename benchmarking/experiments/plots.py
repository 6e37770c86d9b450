"""Figures of the experiments. Every line is a mean over seeds with the standard error of that mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from benchmarking.experiments.records import FOLDER, average

BITS = 1 / math.log(2)
"""Factor from nats to bits."""
COLOURS = ("#0b6e99", "#c8553d", "#5b8c5a", "#8f5da8", "#b8860b", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: named curves over measurements."""

    title: str
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    x: str
    y: str
    factor: float = 1.0
    """What y is multiplied by."""
    by: str | None = None
    """What the measurements of several seeds have in common; x by default."""


def draw_panels(
    name: str, panels: Sequence[Panel], labels: tuple[str, str], *, is_log_y: bool = True, has_common_y: bool = True
) -> None:
    """Draw panels side by side with common axes, and save the figure as docs/experiments/NAME.svg."""
    with plt.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": name}):
        width = max(6.0, 3.2 * len(panels))
        figure, axes = plt.subplots(
            1, len(panels), figsize=(width, 3.6), sharey=has_common_y, squeeze=False, layout="constrained"
        )
        for ax, panel in zip(axes[0], panels, strict=True):
            draw_curves(ax, panel)
            ax.set_title(panel.title, fontsize=9)
            ax.set_xlabel(labels[0])
            ax.grid(True, which="both", color="#dddddd", linewidth=0.5)
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            if is_log_y:
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter("{x:g}")
                ax.yaxis.set_minor_formatter("{x:g}" if axis_is_short(panels) else NullFormatter())
        axes[0][0].set_ylabel(labels[1])
        handles, names = axes[0][0].get_legend_handles_labels()
        columns = max(1, int(width * 12 / (9 + max(map(len, names)))))  # letters in the width, and in an entry
        figure.legend(handles, names, loc="outside lower center", ncols=min(columns, len(names)), frameon=False)
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def draw_curves(ax: plt.Axes, panel: Panel) -> None:
    """Draw every curve of a panel with its error bars."""
    for index, (name, lines) in enumerate(panel.curves.items()):
        points = average(lines, panel.x, panel.y, panel.by)
        ax.errorbar(
            [point.x for point in points],
            [point.mean * panel.factor for point in points],
            [point.error * panel.factor for point in points],
            label=name,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=3.5,
            linewidth=1.2,
            capsize=2,
        )


def axis_is_short(panels: Sequence[Panel]) -> bool:
    """Tell whether all values lie within one power of ten or so, where its multiples have to be told, too."""
    values = [line[panel.y] for panel in panels for lines in panel.curves.values() for line in lines if panel.y in line]
    return max(values) < 20 * min(values)
