"""transformerlm-bench-train: measure training, alone or beside others."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from benchmarking.bench_training import Entry
    from benchmarking.machine import Machine
    from benchmarking.training_workload import Workload
    from config.roots import BenchTrainConfig
    from config.sections.objective import AnyObjective

COMMAND = Command(
    name="transformerlm-bench-train",
    summary="Measure training: tokens per second, what a step's time goes into, how much of the machine is used.",
    config_name="BenchTrainConfig",
    override="benchmark.size=124M",
    example="""\
examples:
  transformerlm-bench-train --config config/resources/bench_train.toml
      the whole training loop on the small model of the README, in the terminal
  transformerlm-bench-train --config config/resources/bench_train.toml --compare \\
      --set 'benchmark.modes=["eager","compiled"]'
      in turns with plain PyTorch and, where installed (uv sync --group peers), transformers and litgpt
  transformerlm-bench-train --config config/resources/bench_train.toml --set objective.name=masked_diffusion --compare
      the same, and autoregression beside it
  transformerlm-bench-train --config config/resources/bench_train.toml --set benchmark.size=1B --json > bench.jsonl
      one JSON object per contender instead of the table
""",
    computes=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, bench, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this command has."""
    parser.add_argument("--compare", action="store_true", help="let the peers that are installed take turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object per contender and line")


def bench(config: "BenchTrainConfig", options: argparse.Namespace) -> int:
    """Measure everyone and print the table; returns the exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the memory profile warns of tensors older than itself
    from tqdm import tqdm

    from benchmarking.bench_training import Plan, describe_work, figures, format_table, take_turns, warm_up
    from benchmarking.machine import inspect_machine

    section = config.benchmark
    plan = Plan(section.rounds, section.steps_per_round, section.warmup_steps)
    workload = load_workload(config)
    with tempfile.TemporaryDirectory(prefix="bench_train_") as folder:
        entries, missing = enter_all(config, workload, Path(folder), options.compare)
        ours = entries[0]
        before = inspect_machine(workload.device, workload.dtype)
        if not options.json:
            work = describe_work(ours.contender.model, workload, ours.flops_per_token, ours.objective)
            print("\n".join([*describe(config, workload, ours, before), *work, *missing]), flush=True)
        turns = len(entries) * (1 + plan.rounds)
        with tqdm(total=turns, desc="turns", file=sys.stderr, disable=None) as bar:
            for entry in entries:
                warm_up(entry, plan, workload.device)
                bar.update()
            take_turns(entries, plan, bar.update)
        for entry in entries:
            entry.contender.close()
    # A busy machine may have slowed one measurement of its peak down: the better one is nearer the truth.
    after = inspect_machine(workload.device, workload.dtype)
    peak = max(before.flops_per_second, after.flops_per_second)
    rows = [figures(entry, workload, peak) for entry in entries]
    if options.json:
        for row in rows:
            print(json.dumps({"machine": before.name, "peak_flops": peak, **about(config, workload), **row}))
        return 0
    print(f"peak         {peak / 1e9:.1f} GFLOP/s ({before.origin})\n")
    print("\n".join(format_table(rows)))
    print_ratios(entries)
    return 0


def load_workload(config: "BenchTrainConfig") -> "Workload":
    """Return what is to be trained, on which device."""
    from benchmarking.training_workload import SIZES, make_workload
    from trainkit.distributed.parallel import choose_device
    from trainkit.training.precision import choose_dtype

    section = config.benchmark
    device = choose_device(section.device)
    return make_workload(
        SIZES[section.size],
        device,
        choose_dtype(section.precision, device),
        batch_size=section.batch_size,
        context_length=section.context_length,
        vocab_size=section.vocab_size,
        seed=section.seed,
    )


def enter_all(
    config: "BenchTrainConfig", workload: "Workload", folder: Path, is_compared: bool
) -> tuple[list["Entry"], list[str]]:
    """Return all contenders, ours first, and a line about each peer that is not installed."""
    from benchmarking.bench_training import Entry
    from benchmarking.training_contenders import build_peers
    from config.sections.objective import AutoregressiveSection

    autoregressive = AutoregressiveSection(name="autoregressive")
    objectives = [config.objective]
    if is_compared and config.objective.name != "autoregressive":
        objectives.append(autoregressive)
    entries: list[Entry] = []
    missing: list[str] = []
    for is_compiled in (mode == "compiled" for mode in config.benchmark.modes):
        entries += [enter_ours(each, workload, folder, is_compiled) for each in objectives]
        if is_compared:
            loops, missing = build_peers(workload, is_compiled)
            flops = entries[-1].flops_per_token  # the last of ours is autoregressive, as they are
            entries += [Entry(loop, "autoregressive", is_compiled, flops) for loop in loops]
    return entries, [f"left out     {reason}" for reason in missing]


def enter_ours(section: "AnyObjective", workload: "Workload", folder: Path, is_compiled: bool) -> "Entry":
    """Return our loop with an objective."""
    from dataclasses import replace

    from benchmarking.bench_training import Entry
    from benchmarking.training_contenders import OurLoop
    from cli.build import build_objective_over, objective_shape

    mask_id = workload.shape.vocab_size - 1
    objective = build_objective_over(section, mask_id)
    workload = replace(workload, shape=replace(workload.shape, **objective_shape(section)))
    metrics = folder / f"{section.name}_{'compiled' if is_compiled else 'eager'}.jsonl"
    contender = OurLoop(workload, objective, metrics, is_compiled)
    flops = objective.training_flops(contender.model, workload.shape.context_length)
    return Entry(contender, section.name, is_compiled, flops)


def describe(config: "BenchTrainConfig", workload: "Workload", ours: "Entry", machine: "Machine") -> list[str]:
    """Say what is trained, and on what."""
    shape, section = workload.shape, config.benchmark
    parameters = sum(weight.numel() for weight in ours.contender.model.parameters())
    return [
        f"machine      {machine.name}; {machine.describe_load()}",
        f"model        {section.size}: {parameters / 1e6:.2f} M parameters, {shape.num_layers} layers of "
        f"{shape.d_model}, {shape.num_heads} heads, d_ff {shape.d_ff}, vocabulary {shape.vocab_size}",
        f"step         {workload.batch_size} x {shape.context_length} tokens, {ours.objective}, "
        f"{str(workload.dtype).removeprefix('torch.')}, fused AdamW; {section.rounds} rounds of "
        f"{section.steps_per_round} steps",
    ]


def about(config: "BenchTrainConfig", workload: "Workload") -> dict[str, object]:
    """Return what every line of JSON repeats."""
    return {
        "size": config.benchmark.size,
        "batch_size": workload.batch_size,
        "context_length": workload.shape.context_length,
        "vocab_size": workload.shape.vocab_size,
        "dtype": str(workload.dtype).removeprefix("torch."),
    }


def print_ratios(entries: "list[Entry]") -> None:
    """Compare each of ours with everyone else."""
    from benchmarking.bench_training import compare, format_ratios
    from benchmarking.training_contenders import OURS

    ours = [entry for entry in entries if entry.contender.name == OURS]
    others = [entry for entry in entries if entry.contender.name != OURS]
    pairs = [(mine, other) for mine in ours for other in others]
    pairs += [(mine, other) for mine in ours for other in ours if mine.objective != other.objective == "autoregressive"]
    pairs = [(mine, other) for mine, other in pairs if mine.mode == other.mode or other.mode == "eager"]
    if pairs:
        print("\ntimes as fast, by round: median (lowest to highest)\n")
        print("\n".join(format_ratios([compare(*pair) for pair in pairs])))


if __name__ == "__main__":
    sys.exit(main())
