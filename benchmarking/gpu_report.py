"""Measure on a GPU what docs/performance.md leaves open, and write it down: see gpu_report.sh.

The order is that of importance, and nothing new begins once the time is up: what is missing is named in the report.
"""

import argparse
import gc
import math
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import torch

from benchmarking.bench_training import Entry, Plan, figures, take_turns, warm_up
from benchmarking.gpu_checks import CHECKS
from benchmarking.machine import Machine, inspect_machine, synchronize
from benchmarking.training_contenders import OurLoop
from benchmarking.training_workload import SIZES, Size, Workload
from trainkit.environment import code_version
from transformerlm.inference.autoregressive import AutoregressiveSettings, decode_autoregressive
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.diffusion import DiffusionSettings, decode_diffusion
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.base import LanguageObjective
from transformerlm.objectives.block_diffusion import BlockDiffusion
from transformerlm.objectives.masked_diffusion import MaskedDiffusion

RESULTS = Path(__file__).parent / "results"
BUDGET_S = 440.0
BLOCK_LENGTH = 32
SMALL = Size(ModelShape(256, 32, 64, 2, 4, 4, 128), 2)
TRAINING = (
    ("1B", "autoregressive"),
    ("124M", "autoregressive"),
    ("350M", "autoregressive"),
    ("124M", "masked_diffusion"),
    ("124M", "block_diffusion"),
)
TRAINING_PLAN = Plan(rounds=3, steps_per_round=6, warmup_steps=3)
TRAINING_COLUMNS = (
    "tokens/s", "p10", "p90", "step ms", "forward %", "backward %", "update %", "overhead %", "MFU %", "MB peak",
    "compile s",
)  # fmt: skip


@dataclass(slots=True)
class Report:
    """Lines of Markdown, and how much time is left."""

    device: torch.device
    is_dry_run: bool
    budget_s: float
    began_s: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)
    num_failures: int = 0

    @property
    def left_s(self) -> float:
        """Seconds until nothing new may begin."""
        return self.budget_s - (time.monotonic() - self.began_s)

    def add(self, *lines: str) -> None:
        """Write lines down, and show them."""
        self.lines += lines
        print("\n".join(lines), flush=True)

    def attempt(self, name: str, work: Callable[[], str], columns: int) -> None:
        """Add the row that `work` returns; without time, or if it fails, say so in its place."""
        empty = " |" * (columns - 1)
        if self.left_s <= 0:
            self.num_failures += 1
            self.add(f"| {name} | not measured: the time was up{empty}")
            return
        try:
            self.add(work())
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            traceback.print_exc()
            self.num_failures += 1
            reason = " ".join(str(error).split())[:200].replace("|", "/")
            self.add(f"| {name} | FAILED: {type(error).__name__}: {reason}{empty}")
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def describe(report: Report, machine: Machine) -> None:
    """Say on what everything was measured."""
    version = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if torch.version.cuda else "none"
    report.add(
        f"# {machine.name}",
        "",
        f"{datetime.now():%Y-%m-%d %H:%M}; code {code_version() or 'not from a git checkout'}; "
        f"Python {platform.python_version()}; CUDA {version}; {machine.describe_load()}.",
        f"Peaks: {machine.describe_peaks()}. Written by `benchmarking/gpu_report.sh`"
        + (" --cpu-dry-run: the figures mean nothing, only that everything runs." if report.is_dry_run else "."),
        "",
    )


def objective_of(name: str, mask_id: int) -> LanguageObjective:
    """Return an objective with its defaults."""
    if name == "autoregressive":
        return Autoregressive()
    if name == "masked_diffusion":
        return MaskedDiffusion(mask_id)
    return BlockDiffusion(mask_id, is_first_given=True, block_length=BLOCK_LENGTH)


def train(report: Report, machine: Machine, size: str, name: str) -> str:
    """Measure the whole training loop, compiled on a GPU; returns a row of the table."""
    chosen = SMALL if report.is_dry_run else SIZES[size]
    objective = objective_of(name, chosen.shape.vocab_size - 1)
    is_block = name == "block_diffusion"
    shape = replace(chosen.shape, block_length=BLOCK_LENGTH if is_block else None, shift_logits=is_block)
    is_compiled = report.device.type == "cuda"
    dtype = torch.bfloat16 if is_compiled else torch.float32
    workload = Workload(shape, chosen.batch_size, report.device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        loop = OurLoop(workload, objective, Path(folder) / "metrics.jsonl", is_compiled)
        entry = Entry(loop, name, is_compiled, objective.training_flops(loop.model, shape.context_length))
        plan = Plan(1, 2, 0) if report.is_dry_run else TRAINING_PLAN
        warm_up(entry, plan, report.device)
        take_turns([entry], plan)
        loop.close()
    row = figures(entry, workload, machine.flops_per_second)
    cells = [f"{row[column]:.2f}" if column == "overhead %" else f"{row[column]:.1f}" for column in TRAINING_COLUMNS]
    step = f"{workload.batch_size} x {shape.context_length}"
    return f"| {size}, {name} | {step} | {entry.flops_per_token / 1e9:.3f} | " + " | ".join(cells) + " |"


def generate(report: Report, machine: Machine, size: str, how: str) -> str:
    """Measure generation at batch 1 from random bfloat16 weights; returns a row of the table."""
    chosen = SMALL if report.is_dry_run else SIZES[size]
    dtype = torch.bfloat16 if report.device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    model = TransformerLM(chosen.shape).to(report.device).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    prompt_length, total = (4, 16) if report.is_dry_run else (32, 288)
    canvas = Canvas.continuing(list(range(1, 1 + prompt_length)), total, total)
    seconds, cost = [], None
    for repeat in range(2 if report.is_dry_run else 5):
        synchronize(report.device)
        start = time.perf_counter()
        cost = decode(model, canvas, how).cost
        synchronize(report.device)
        if repeat:  # the first compiles
            seconds.append(time.perf_counter() - start)
    rate = (total - prompt_length) / statistics.median(seconds)
    shape, width = model.shape, 2 if dtype == torch.bfloat16 else 4
    read = sum(parameter.nbytes for parameter in model.parameters())
    read -= 0 if shape.tie_embeddings else model.embedding.weight.nbytes
    if how == "autoregressive":  # keys and values of half of the row on average
        read += model.kv_bytes_per_token(dtype) * total / 2
    passes = cost.passes / (total - prompt_length)
    usage = 100 * read * passes * rate / machine.bytes_per_second
    cells = f"{rate:.1f} | {1e3 / rate:.3f} | {passes:.2f} | {usage:.1f}"
    return f"| {size}, {how} | {prompt_length} + {total - prompt_length} | {width * 8} | {cells} |"


def decode(model: TransformerLM, canvas: Canvas, how: str):
    """Generate once with decoder `how`; nothing ends early."""
    mask_id, end_id = model.shape.vocab_size - 1, model.shape.vocab_size - 2
    if how == "autoregressive":
        settings = AutoregressiveSettings(end_id, mask_id, is_compiled=model.embedding.weight.is_cuda)
        return decode_autoregressive(model, [canvas], settings, SamplingSettings(), row_generators([0]))
    is_block = how == "block_diffusion"
    settings = DiffusionSettings(
        mask_id, end_id, min(BLOCK_LENGTH, 8 if len(canvas.tokens) < BLOCK_LENGTH else BLOCK_LENGTH),
        cache="block" if is_block else "dual", is_block_causal=is_block,
    )  # fmt: skip
    return decode_diffusion(model, [canvas], settings, SamplingSettings(), row_generators([0]))


def check(report: Report, name: str) -> str:
    """Run one check; returns a row of the table."""
    began_s = time.monotonic()
    CHECKS[name](report.device)
    return f"| {name} | holds | {time.monotonic() - began_s:.1f} |"


def write(report: Report, machine: Machine) -> None:
    """Fill in the report."""
    describe(report, machine)
    header = ["size, objective", "step", "GFLOP/token", *TRAINING_COLUMNS]
    report.add("## Training: the whole loop, bfloat16, compiled", "", *table_head(header))
    for size, name in TRAINING:
        report.attempt(f"{size}, {name}", lambda size=size, name=name: train(report, machine, size, name), len(header))
    header = ["size, decoder", "tokens", "bits", "tokens/s", "ms/token", "passes/token", "memory bandwidth %"]
    report.add("", "## Generation, batch 1; autoregression by CUDA graphs", "", *table_head(header))
    for how in ("autoregressive", "masked_diffusion", "block_diffusion"):
        report.attempt(f"1B, {how}", lambda how=how: generate(report, machine, "1B", how), len(header))
    header = ["check", "result", "seconds"]
    report.add("", "## What must hold", "", *table_head(header))
    for name in CHECKS:
        if report.device.type == "cuda" or "FlexAttention" not in name:  # which has no backward pass on a CPU
            report.attempt(name, lambda name=name: check(report, name), len(header))
    report.add(
        "", f"{time.monotonic() - report.began_s:.0f} seconds in all, {report.num_failures} not as they should be."
    )


def table_head(names: Sequence[str]) -> tuple[str, str]:
    """Return the first two lines of a Markdown table."""
    return f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; returns 1 if something failed or there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-dry-run", action="store_true", help="a tiny model on the CPU: does everything run?")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="begin nothing new after so many seconds")
    parser.add_argument("--output", type=Path, help="file to write; default: benchmarking/results/<device>.md")
    options = parser.parse_args(argv)
    if not options.cpu_dry_run and not torch.cuda.is_available():
        print("error: torch sees no GPU here; --cpu-dry-run shows on a CPU that everything runs", file=sys.stderr)
        return 1
    device = torch.device("cpu" if options.cpu_dry_run else "cuda")
    machine = inspect_machine(device, torch.float32 if options.cpu_dry_run else torch.bfloat16)
    report = Report(device, options.cpu_dry_run, math.inf if options.cpu_dry_run else options.budget_s)
    write(report, machine)
    name = "cpu-dry-run" if options.cpu_dry_run else torch.cuda.get_device_name(device).replace(" ", "-")
    path = options.output or RESULTS / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(report.lines) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}", file=sys.stderr)
    return 1 if report.num_failures else 0


if __name__ == "__main__":
    sys.exit(main())
