"""transformerlm-bench-infer: measure latency and throughput of generation."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from benchmarking.bench_infer_latency import Subject
    from config.roots import BenchInferConfig

COMMAND = Command(
    name="transformerlm-bench-infer",
    summary="Measure generation: latency, tokens per second and passes through the model, beside what theory allows.",
    config_name="BenchInferConfig",
    override="benchmark.repeats=20",
    example="""\
examples:
  transformerlm-bench-infer --config config/resources/bench_infer.toml
  transformerlm-bench-infer --config config/resources/bench_infer.toml --set objective.name=masked_diffusion \\
      --set inference.steps=32 --set inference.block_length=32 --set inference.cache=dual
  transformerlm-bench-infer --config config/resources/bench_infer.toml --json > bench.jsonl
      one JSON object per batch size instead of the table
""",
    computes=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, bench, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of output."""
    parser.add_argument("--json", action="store_true", help="print one JSON object per batch size and line")


def bench(config: "BenchInferConfig", options: argparse.Namespace) -> int:
    """Measure every batch size and print the table; returns the exit code."""
    import torch
    from tqdm import tqdm

    from benchmarking.bench_infer_latency import bound_of, describe_theory, figures, format_table, measure
    from benchmarking.machine import inspect_machine
    from transformerlm.models import few_rows

    subject = load_subject(config)
    length = config.benchmark.prompt_length
    if subject.settings.total_length <= length:
        raise ValueError(
            f"inference.total_length: {subject.settings.total_length} leaves nothing to generate after "
            f"benchmark.prompt_length = {length}; raise it or shorten the prompt"
        )
    if subject.device.type == "cpu":
        few_rows.load()  # as after some seconds of generating
    generator = torch.Generator().manual_seed(subject.settings.seed)
    prompt = torch.randint(subject.model.shape.vocab_size - 2, (length,), generator=generator).tolist()
    machine = inspect_machine(subject.device, subject.model.embedding.weight.dtype)
    if not options.json:
        print("\n".join(describe_theory(subject, machine, length)), end="\n\n", flush=True)
    rows = []
    for size in tqdm(config.benchmark.batch_sizes, desc="batch sizes", file=sys.stderr, disable=None):
        measurement = measure(subject, prompt, size, (config.benchmark.warmup, config.benchmark.repeats))
        rows.append(figures(measurement, bound_of(subject, measurement.cost, size, machine)))
        if options.json:
            print(json.dumps({"machine": machine.name, "mode": subject.mode, **rows[-1]}), flush=True)
    if not options.json:
        print("\n".join(format_table(rows)))
    return 0


def load_subject(config: "BenchInferConfig") -> "Subject":
    """Load the checkpoint, or make a model with random weights."""
    import torch

    from benchmarking.bench_infer_latency import Subject
    from cli.build import build_generation, build_shape
    from trainkit.distributed.parallel import choose_device
    from transformerlm.inference.predictor import Predictor
    from transformerlm.inference.request import choose_cache, choose_mode
    from transformerlm.models.transformer import TransformerLM
    from transformerlm.utils.dtypes import cast_weights

    device = choose_device(config.inference.device)
    if config.checkpoint is not None:
        predictor = Predictor.from_checkpoint(config.checkpoint.path, device, config.checkpoint.weights)
        model, objective, mask_id = predictor.model, predictor.objective, predictor.tokenizer.mask_id
    else:
        assert config.model is not None, "the schema requires a checkpoint, or a model and its objective"
        assert config.objective is not None
        torch.manual_seed(config.inference.seed)
        model = TransformerLM(build_shape(config.model, config.objective)).to(device).eval()
        objective, mask_id = config.objective.name, config.model.vocab_size - 1
    cast_weights(model, config.inference.precision)
    settings = build_generation(config.inference, model.shape)
    if choose_mode(settings.mode, objective) == "diffusion":
        settings = replace(settings, cache=choose_cache(settings.cache, objective))
    return Subject(model, objective, None if objective == "autoregressive" else mask_id, settings)


if __name__ == "__main__":
    sys.exit(main())
