"""Lay out what the tokenizer benchmark measured: tables, ratios, and a summary that hides no loss."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarking.bench_tokenizer import Corpus, Plan, Row
from benchmarking.tokenizer_tasks import OURS

TITLES = {
    "encode": "text in memory -> ids",
    "lists": "documents in memory -> Python lists of ids",
    "decode": "ids in memory -> text",
    "prompt": "one prompt of 57 bytes -> ids",
    "file": "text file -> file of ids, end-of-text tokens included",
    "train": "text file -> vocabulary",
}
UNITS = {"prompt": "microseconds", "train": "seconds"}
"""What the figures of a task are in, if not MB/s."""
BUSY_LOAD = 0.5
"""Load per core above which figures are not to be trusted."""


def describe_machine() -> str:
    """Name the processor, the cores this process may use, Python, and how busy the machine is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    busy = "; BUSY: other work slows these figures down" if load > BUSY_LOAD * cores else ""
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor_name()}, {cores} cores, {python}, load {load:.2f}{busy}"


def processor_name() -> str:
    """Return the processor's own name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_setting(plan: Plan, corpus: Corpus, libraries: Mapping[str, str]) -> list[str]:
    """Say what is measured on what."""
    own = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "regex"))
    others = ", ".join(f"{name} {number}" for name, number in libraries.items() if name != OURS)
    return [
        f"machine     {describe_machine()}",
        f"versions    {OURS} {libraries[OURS]} ({own})" + (f"; {others}" if others else ""),
        f"text        {corpus.describe()}",
        f"vocabulary  {corpus.tokenizer.vocab_size} tokens; backend {plan.backend}",
        f"figures     medians of {plan.rounds} fresh processes, (lowest-highest); threads pinned to cores",
    ]


def describe_check(rows: Sequence[Row], corpus: Corpus) -> list[str]:
    """Say whose results equal ours, and how the others differ."""
    equal = [row for row in rows if row.library != OURS and not row.problem and not row.remark]
    names = sorted({row.library for row in equal}, key=[row.library for row in equal].index)
    lines = [
        f"the same as ours on {corpus.check_bytes / 1e6:.1f} MB: "
        + "; ".join(f"{name} ({', '.join(unique(row.task for row in equal if row.library == name))})" for name in names)
    ]
    lines += [
        f"{row.task}: {row.library} {row.way}: {row.problem or row.remark}" for row in rows if row.problem or row.remark
    ]
    return lines if names or lines[1:] else []


def format_rows(rows: Sequence[Row], corpus: Corpus) -> list[str]:
    """Return the table of one task: a line for every way, with how ours compares."""
    ours = rows[0]
    threads = f", {ours.threads} thread{'s' * (ours.threads > 1)}" if ours.task in ("file", "train") else ""
    unit, has_repeated = UNITS.get(ours.task, "MB/s"), len(ours.outcomes[0].seconds) > 1
    titles = [f"{unit}, first pass", f"{unit}, repeated"] if has_repeated else [unit, ""]
    lines = [
        f"{ours.task}: {TITLES[ours.task]}{threads}",
        f"{'':32}{titles[0]:>24}{titles[1]:>26}{'peak MB':>9}{'ready s':>9}{'  ours is' * (rows[-1].library != OURS)}",
    ]
    for row in rows:
        name = f"{row.library} {row.way}"
        if not row.outcomes:
            lines.append(f"{name:<32}  not timed: {row.problem}")
            continue
        cells = [format_spread(figures) for figures in (first_figures(row, corpus), repeated_figures(row, corpus))]
        ratios = f"  {describe_ratios(row, ours)}" if row.library != OURS else ""
        figures = f"{cells[0]:>24}{cells[1]:>26}{row.peak_megabytes:>9.0f}{row.ready_s:>9.2f}"
        lines.append(f"{name:<32}{figures}{ratios}")
    return lines


def first_figures(row: Row, corpus: Corpus) -> list[float]:
    """Return the figure of each first pass, in the unit of its task."""
    return [convert(row, outcome.seconds[0], corpus) for outcome in row.outcomes]


def repeated_figures(row: Row, corpus: Corpus) -> list[float]:
    """Return the figure of each repeated pass."""
    return [convert(row, second, corpus) for outcome in row.outcomes for second in outcome.seconds[1:]]


def convert(row: Row, seconds: float, corpus: Corpus) -> float:
    """Return a time in the unit of its task."""
    match UNITS.get(row.task):
        case "microseconds":
            return 1e6 * seconds
        case "seconds":
            return seconds
    return corpus.text_bytes / 1e6 / seconds


def format_spread(figures: Sequence[float]) -> str:
    """Write the median, and the lowest and highest figure in brackets."""
    if not figures:
        return ""
    digits = 2 if median(figures) < 20 else 0
    return f"{median(figures):.{digits}f} ({min(figures):.{digits}f}-{max(figures):.{digits}f})"


def describe_ratios(row: Row, ours: Row) -> str:
    """Say how ours compares: times as fast, and the part of the memory."""
    if row.problem:
        return f"not compared: {row.problem}"
    speeds = [f"{row.first_s / ours.first_s:.2f}x"]
    if len(row.outcomes[0].seconds) > 1:
        speeds.append(f"{row.repeated_s / ours.repeated_s:.2f}x")
    return f"{' / '.join(speeds)} as fast, {ours.peak_megabytes / row.peak_megabytes:.2f}x the memory"


def summarize(tables: Iterable[Sequence[Row]]) -> list[str]:
    """Compare ours with the best of the others, figure by figure, losses included."""
    lines = []
    for ours, *others in tables:
        rivals = [row for row in others if row.library != OURS and row.outcomes and not row.problem]
        if not rivals:
            continue
        threads = f", {ours.threads} thread{'s' * (ours.threads > 1)}" if ours.task in ("file", "train") else ""
        kinds = {"first pass": lambda row: row.first_s, "repeated": lambda row: row.repeated_s}
        if len(ours.outcomes[0].seconds) == 1:
            kinds = {"": kinds["first pass"]}
        for kind, seconds in kinds.items():
            best = min(rivals, key=seconds)
            ratio = seconds(best) / seconds(ours)
            what = ours.task + threads + (f", {kind}" if kind else "")
            verdict = "faster" if ratio >= 1 else "SLOWER"
            lines.append(f"{what:<32} {ratio:7.2f}x as fast as {best.library} ({best.way}): {verdict}")
        leanest = min(rivals, key=lambda row: row.peak_megabytes)
        ratio = ours.peak_megabytes / leanest.peak_megabytes
        lines.append(f"{ours.task + threads + ', memory':<32} {ratio:7.2f}x that of {leanest.library} ({leanest.way})")
    return ["ours against the best of the others in each figure:", *lines] if lines else []


def unique(items: Iterable[str]) -> list[str]:
    """Return items once each, in order."""
    return list(dict.fromkeys(items))
