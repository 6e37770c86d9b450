"""transformerlm-sweep: what every way of sampling costs and what it does to the texts."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from config.roots import SweepConfig

COMMAND = Command(
    name="transformerlm-sweep",
    summary="Run a grid of samplers over one checkpoint: exact quality of the stories beside passes, work and time.",
    config_name="SweepConfig",
    override="sweep.num_texts=8",
    example="""\
examples:
  transformerlm-sweep --config config/resources/sweep_infer.toml
      a table on standard output, sweep.jsonl, and sweep.html with the plot
  transformerlm-sweep --config config/resources/sweep_infer.toml --set sweep.temperature=[0.5,1.0] \\
      --set sweep.remasking=['threshold'] --set sweep.output=warmth
""",
    computes=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, sweep, argv)


def sweep(config: "SweepConfig", options: argparse.Namespace) -> int:
    """Run every combination, write lines as they come and the page at the end; returns the exit code."""
    from tqdm import tqdm

    from benchmarking.pareto_page import write_pareto_page
    from benchmarking.sweep import format_results, make_grid, run_cell
    from cli.build import build_generation
    from trainkit.environment import processor_name
    from transformerlm.inference.predictor import Predictor
    from transformerlm.utils.dtypes import cast_weights

    predictor = Predictor.from_checkpoint(config.checkpoint.path, config.inference.device, config.checkpoint.weights)
    cast_weights(predictor.model, config.inference.precision)
    base, section = build_generation(config.inference, predictor.model.shape), config.sweep
    lists = {key: values for key, values in section.grid().items() if values is not None}
    results, refusals = [], []
    with open(f"{section.output}.jsonl", "w", encoding="utf-8") as lines:
        for cell in tqdm(make_grid(base, lists), desc="combinations", file=sys.stderr, disable=None):
            try:
                results.append(run_cell(predictor, cell, config.inference.prompt, section.num_texts, section.warmup))
            except ValueError as error:
                refusals.append(f"{cell.label}: {error}")
                continue
            print(json.dumps(results[-1].to_dict()), file=lines, flush=True)
    if not results:
        raise ValueError("\n".join(["sweep: no combination is possible", *refusals]))
    facts = {
        "checkpoint": str(config.checkpoint.path),
        "objective": predictor.objective,
        "texts": section.num_texts,
        "machine": processor_name(),
    }
    write_pareto_page(results, facts, f"{section.output}.html")
    print("\n".join(format_results(results)))
    for refusal in refusals:
        print(f"left out: {refusal}", file=sys.stderr)
    print(f"plot: {section.output}.html, lines: {section.output}.jsonl", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
