"""Speed of training: the work a token needs, the tokens per second reached, and what the rest of the step is spent on.

    MFU        = FLOPs per token x tokens/s / dense peak
    overhead   = the part of a step that is neither forward, backward, clipping nor update: fetching, summing, judging,
                 logging; of a GPU, the time that its queue spends on that or waits for the host

Contenders take turns, round after round, so that a busy machine disturbs all alike; ratios are made round by round.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from benchmarking.memory_of_step import memory_of_step
from benchmarking.step_times import StepTimes, spread
from benchmarking.training_contenders import Contender
from benchmarking.training_workload import Workload
from transformerlm.models.transformer import TransformerLM

COMPUTING = ("forward", "backward", "clip", "optimizer")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int
    steps_per_round: int
    warmup_steps: int


@dataclass(slots=True)
class Entry:
    """A contender, and what was found out about it."""

    contender: Contender
    objective: str
    is_compiled: bool
    flops_per_token: float
    first_step_s: float = 0.0
    peak_memory_bytes: int = 0
    rounds: list[StepTimes] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """How it computes."""
        return "compiled" if self.is_compiled else "eager"

    @property
    def steps_ms(self) -> list[float]:
        """All steps of all rounds."""
        return [step for each in self.rounds for step in each.steps_ms]

    def share(self, part: str) -> float:
        """Return the part of all steps that a range took [0, 1]."""
        return sum(each.parts_ms.get(part, 0.0) for each in self.rounds) / sum(self.steps_ms)


def warm_up(entry: Entry, plan: Plan, device: torch.device) -> None:
    """Take the first step, which compiles, measure the memory of another, and go on until caches are warm."""
    entry.first_step_s = sum(entry.contender.run(1).steps_ms) / 1e3
    entry.peak_memory_bytes = memory_of_step(entry.contender, device)
    if plan.warmup_steps:
        entry.contender.run(plan.warmup_steps)


def take_turns(entries: Sequence[Entry], plan: Plan, tell: Callable[[], object] = lambda: None) -> None:
    """Let everyone train in turns; `tell` is called after each turn."""
    for _ in range(plan.rounds):
        for entry in entries:
            entry.rounds.append(entry.contender.run(plan.steps_per_round))
            tell()


def figures(entry: Entry, workload: Workload, peak_flops: float) -> dict[str, float | str]:
    """Return everything that was found out about one contender, by the table's headings and more."""
    steps_ms = entry.steps_ms
    median_ms = statistics.median(steps_ms)
    fastest_ms, slowest_ms = spread(steps_ms)
    tokens_per_ms = workload.tokens_per_step
    rate = 1e3 * tokens_per_ms / median_ms
    compile_s = max(0.0, entry.first_step_s - median_ms / 1e3) if entry.is_compiled else 0.0
    return {
        "contender": entry.contender.name,
        "objective": entry.objective,
        "mode": entry.mode,
        "tokens/s": rate,
        "p10": 1e3 * tokens_per_ms / slowest_ms,
        "p90": 1e3 * tokens_per_ms / fastest_ms,
        "step ms": median_ms,
        "data %": 100 * entry.share("fetch"),
        "forward %": 100 * entry.share("forward"),
        "backward %": 100 * entry.share("backward"),
        "update %": 100 * (entry.share("clip") + entry.share("optimizer")),
        "overhead %": 100 * (1 - sum(map(entry.share, COMPUTING))),
        "MFU %": 100 * entry.flops_per_token * rate / peak_flops,
        "MB peak": entry.peak_memory_bytes / 1e6,
        "compile s": compile_s,
        "flops_per_token": entry.flops_per_token,
        "steps": len(steps_ms),
    }


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one contender is as another, round by round."""

    faster: str
    than: str
    median: float
    low: float
    high: float


def compare(ours: Entry, other: Entry) -> Ratio:
    """Return the ratio of throughputs of the two in the same rounds."""
    ratios = [theirs.median_ms / mine.median_ms for mine, theirs in zip(ours.rounds, other.rounds, strict=True)]
    return Ratio(name_of(ours), name_of(other), statistics.median(ratios), min(ratios), max(ratios))


def name_of(entry: Entry) -> str:
    """Return what tells an entry from all others."""
    return f"{entry.contender.name} {entry.objective}, {entry.mode}"


def describe_work(model: TransformerLM, workload: Workload, flops_per_token: float, objective: str) -> list[str]:
    """Say how many operations a token needs, and by which formula."""
    shape = workload.shape
    blocks = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim >= 2)
    matrices = blocks + shape.padded_vocab_size * shape.d_model
    lines = [f"work         {flops_per_token / 1e6:.2f} MFLOP per token, forward and backward"]
    if objective in ("autoregressive", "masked_diffusion"):
        keys = (shape.context_length + 1) / 2 if objective == "autoregressive" else shape.context_length
        lines.append(
            f"             = 6 x {matrices:,} weights in matrices"
            f" + 12 x {shape.num_layers} layers x {shape.d_model} wide x {keys:g} visible keys"
        )
    return lines


COLUMNS = (
    ("tokens/s", "{:.0f}"),
    ("p10", "{:.0f}"),
    ("p90", "{:.0f}"),
    ("step ms", "{:.1f}"),
    ("data %", "{:.1f}"),
    ("forward %", "{:.0f}"),
    ("backward %", "{:.0f}"),
    ("update %", "{:.0f}"),
    ("overhead %", "{:.2f}"),
    ("MFU %", "{:.1f}"),
    ("MB peak", "{:.0f}"),
    ("compile s", "{:.1f}"),
)


def format_table(rows: Sequence[dict[str, float | str]]) -> list[str]:
    """Lay figures out as a table."""
    has_objectives = len({row["objective"] for row in rows}) > 1
    table = [["", *(name for name, _ in COLUMNS)]]
    for row in rows:
        name = f"{row['contender']}, {row['objective']}" if has_objectives else str(row["contender"])
        table.append([f"{name}, {row['mode']}", *(form.format(row[column]) for column, form in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in cells).rstrip()
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in table)
    ]


def format_ratios(ratios: Sequence[Ratio]) -> list[str]:
    """Say who is how many times as fast as whom: the median of the rounds, then their range."""
    width = max((len(f"{each.faster} / {each.than}") for each in ratios), default=0)
    return [
        f"{f'{each.faster} / {each.than}':{width}}  {each.median:.3f}  ({each.low:.3f} to {each.high:.3f})"
        for each in ratios
    ]
