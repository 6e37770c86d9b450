"""transformerlm-bench-infer: measure latency and throughput of generation."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
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
      --set inference.steps=32 --set benchmark.json_path=bench.json
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, bench, argv)


def bench(config: "BenchInferConfig", options: argparse.Namespace) -> int:
    """Measure every batch size and print the table; returns the exit code."""
    import torch
    from tqdm import tqdm

    from benchmarking.bench_infer_latency import describe_theory, format_measurements, measure
    from cli.build import build_generation

    subject = load_subject(config)
    settings = build_generation(config.inference, subject.model.shape.context_length)
    if settings.total_length <= config.benchmark.prompt_length:
        raise ValueError(
            f"inference.total_length: {settings.total_length} leaves nothing to generate after "
            f"benchmark.prompt_length = {config.benchmark.prompt_length}; raise it or shorten the prompt"
        )
    vocab_size = subject.model.shape.vocab_size
    generator = torch.Generator().manual_seed(settings.seed)
    prompt = torch.randint(vocab_size - 1, (config.benchmark.prompt_length,), generator=generator).tolist()
    repeats = (config.benchmark.warmup, config.benchmark.repeats)
    print("\n".join(describe_theory(subject, settings)), flush=True)
    sizes = tqdm(config.benchmark.batch_sizes, desc="batch sizes", file=sys.stderr, disable=None)
    measurements = [measure(subject, prompt, settings, size, repeats) for size in sizes]
    print("\n" + "\n".join(format_measurements(measurements)))
    if config.benchmark.json_path:
        figures = [measurement.to_json() for measurement in measurements]
        Path(config.benchmark.json_path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def load_subject(config: "BenchInferConfig") -> "Subject":
    """Load the checkpoint, or make a model with random weights."""
    import torch

    from benchmarking.bench_infer_latency import Subject
    from cli.build import build_shape
    from trainkit.distributed.parallel import choose_device
    from transformerlm.inference.predictor import Predictor
    from transformerlm.models.transformer import TransformerLM
    from transformerlm.utils.dtypes import cast_weights

    device = choose_device(config.inference.device)
    if config.checkpoint is not None:
        predictor = Predictor.from_checkpoint(config.checkpoint.path, device)
        model, objective, mask_id = predictor.model, predictor.objective, predictor.tokenizer.mask_id
    else:
        assert config.model is not None, "the schema requires a checkpoint, or a model and its objective"
        assert config.objective is not None
        torch.manual_seed(config.inference.seed)
        model = TransformerLM(build_shape(config.model)).to(device).eval()
        objective, mask_id = config.objective.name, config.model.vocab_size - 1
    cast_weights(model, config.inference.precision)
    return Subject(model, objective, None if objective == "autoregressive" else mask_id)


if __name__ == "__main__":
    sys.exit(main())
