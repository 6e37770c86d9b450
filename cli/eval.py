"""transformerlm-eval: what checkpoints know, on one footing whatever their objectives."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from config.roots import EvalConfig

COMMAND = Command(
    name="transformerlm-eval",
    summary="Score checkpoints on held-out text, multiple choice and gaps: exact likelihoods and bounds in one table.",
    config_name="EvalConfig",
    override="evaluation.draws=64",
    example="""\
examples:
  transformerlm-eval --config config/resources/eval.toml
      the newest run on stories it has not seen, beside their exact entropy
  transformerlm-eval --config config/resources/eval.toml runs/plain runs/diffusion --json > scores.jsonl
      several checkpoints, one JSON object per line
  transformerlm-eval --config config/resources/eval.toml --set choices.file=questions.jsonl
      questions of your own: {"question": "...", "options": ["...", "..."], "answer": 0}
""",
    computes=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, evaluate, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoints, and the choice of output."""
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="*", help="run or checkpoint folders, instead of the configuration's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per checkpoint and line")


def evaluate(config: "EvalConfig", options: argparse.Namespace) -> int:
    """Measure every checkpoint and print the tables; returns the exit code."""
    from cli.evaluation import measure_all
    from transformerlm.evaluation.report import format_report

    paths = tuple(options.checkpoints) or config.evaluation.checkpoints
    lines = []
    for line in measure_all(config, paths):
        lines.append(line)
        if options.json:
            print(json.dumps(line.to_dict()), flush=True)
    if not options.json:
        from cli.corpora import describe_corpus

        data = config.data
        name = "" if data is None else data.megatron_prefix or describe_corpus(data, data.split)
        print(format_report(lines, name, config.evaluation.draws))
    return 0


if __name__ == "__main__":
    sys.exit(main())
