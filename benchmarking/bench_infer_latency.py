"""Latency and throughput of generation: the theory first, then the figures beside it.

Per generated text: time to the first token (autoregressive), total time, tokens per second, and what it cost in passes
through the model. The memory-bound floor of one autoregressive step is the time to read every weight once.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from transformerlm.inference.autoregressive import generate_autoregressive
from transformerlm.inference.diffusion import DiffusionSettings, generate_diffusion
from transformerlm.inference.predictor import GenerationSettings
from transformerlm.inference.sampling import row_generators
from transformerlm.models.transformer import TransformerLM

COPY_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    model: TransformerLM
    objective: str
    mask_id: int | None
    """Of a diffusion model; None generates autoregressively."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device


@dataclass(frozen=True, slots=True)
class Measurement:
    """One batch size, timed several times."""

    batch_size: int
    generated_tokens: int
    """Tokens of one generation, over all rows."""
    evaluations: int
    """Passes through the model for one generation."""
    position_forwards: int
    """Positions that went through the network for one generation, over all rows."""
    seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...]
    """Time until the first text appeared; for diffusion, after the first denoising step."""

    @property
    def median_s(self) -> float:
        """Median time of one generation."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second at the median."""
        return self.generated_tokens / self.median_s

    def to_json(self) -> dict[str, float | int]:
        """Return the figures as plain values."""
        low, high = spread(self.seconds)
        return {
            "batch_size": self.batch_size,
            "generated_tokens": self.generated_tokens,
            "latency_ms_median": 1e3 * self.median_s,
            "latency_ms_p10": 1e3 * low,
            "latency_ms_p90": 1e3 * high,
            "first_text_ms_median": 1e3 * statistics.median(self.first_token_seconds),
            "tokens_per_second": self.tokens_per_second,
            "evaluations": self.evaluations,
            "tokens_per_evaluation": self.generated_tokens / self.evaluations / self.batch_size,
            "position_forwards_per_token": self.position_forwards / self.generated_tokens,
        }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the 10th and 90th percentile (nearest rank)."""
    ordered = sorted(values)
    return ordered[round(0.1 * (len(ordered) - 1))], ordered[round(0.9 * (len(ordered) - 1))]


def measure(
    subject: Subject, prompt: Sequence[int], settings: GenerationSettings, batch_size: int, repeats: tuple[int, int]
) -> Measurement:
    """Time generations of `batch_size` rows that all continue the same prompt; none ends early.

    repeats: (untimed, timed) generations.
    """
    seconds, first_seconds, evaluations = [], [], 0
    warmup, timed = repeats
    for repeat in range(warmup + timed):
        first_times: list[float] = []
        synchronize(subject.device)
        start = time.perf_counter()
        evaluations = generate(
            subject,
            [list(prompt)] * batch_size,
            replace(settings, seed=settings.seed + repeat),
            lambda times=first_times: times.append(time.perf_counter()),
        )
        synchronize(subject.device)
        if repeat >= warmup:
            seconds.append(time.perf_counter() - start)
            first_seconds.append(first_times[0] - start)
    generated = settings.total_length - len(prompt)
    if subject.mask_id is None:
        forwards = len(prompt) + generated - 1
    else:
        forwards = evaluations * settings.total_length * (2 if settings.cfg_scale > 0 else 1)
    return Measurement(
        batch_size, generated * batch_size, evaluations, forwards * batch_size, tuple(seconds), tuple(first_seconds)
    )


def generate(
    subject: Subject, prompts: list[list[int]], settings: GenerationSettings, on_progress: Callable[[], object]
) -> int:
    """Generate once, calling on_progress whenever text appears; returns the passes through the model."""
    generators = row_generators(settings.seed, len(prompts))
    if subject.mask_id is None:

        def on_token(row: int, token: int) -> bool:
            on_progress()
            return False

        return generate_autoregressive(
            subject.model, prompts, settings.total_length, settings.sampling, generators, on_token
        )[1]
    diffusion = DiffusionSettings(
        subject.mask_id, -1, settings.steps, settings.block_length, settings.remasking, settings.cfg_scale
    )
    return generate_diffusion(
        subject.model,
        prompts,
        settings.total_length,
        diffusion,
        settings.sampling,
        generators,
        lambda tokens: on_progress(),
    )[1]


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish, so that the clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: torch.device) -> float:
    """Measure how fast memory moves in this very run: bytes read and written per second, the best of five copies."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(6):
        start = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * COPY_BYTES / best


def describe_theory(subject: Subject, settings: GenerationSettings) -> list[str]:
    """Say what the hardware would allow: weights to read, operations to do, and the bound that follows."""
    model = subject.model
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    bandwidth = copy_bandwidth(subject.device)
    is_diffusion = subject.mask_id is not None
    flops = model.flops_per_token(settings.total_length, is_causal=not is_diffusion, is_training=False)
    lines = [
        f"machine              {describe_machine(subject.device)}",
        f"model                {model.parameter_count() / 1e6:.2f} M parameters, {weight_bytes / 1e6:.1f} MB, "
        f"{subject.objective}",
        f"work per position    {flops / 1e6:.2f} MFLOP forward",
        f"memory bandwidth     {bandwidth / 1e9:.1f} GB/s (copy, measured now)",
    ]
    if is_diffusion:
        gigaflops = flops * settings.total_length * settings.steps / 1e9
        lines.append(
            f"work per text        {gigaflops:.1f} GFLOP in at most {settings.steps} passes over all positions"
        )
    else:
        lines.append(f"KV cache             {model.kv_bytes_per_token()} bytes per position")
        lines.append(
            f"bound                {weight_bytes / bandwidth * 1e3:.3f} ms per pass to read the weights once: "
            f"{bandwidth / weight_bytes:.0f} tokens/s per row"
        )
    return lines


def describe_machine(device: torch.device) -> str:
    """Name the processor that computes, and torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def format_measurements(measurements: Sequence[Measurement]) -> list[str]:
    """Lay measurements out as a table."""
    header = (
        f"{'batch':>5} {'tokens/s':>9} {'median ms':>10} {'p10':>9} {'p90':>9} {'first ms':>9} "
        f"{'ms/token':>9} {'passes':>7} {'tokens/pass':>12} {'positions/token':>16}"
    )
    rows = [header]
    for each in measurements:
        figures = each.to_json()
        per_token = each.median_s * 1e3 / (each.generated_tokens / each.batch_size)
        rows.append(
            f"{each.batch_size:>5} {each.tokens_per_second:>9.0f} {figures['latency_ms_median']:>10.1f} "
            f"{figures['latency_ms_p10']:>9.1f} {figures['latency_ms_p90']:>9.1f} "
            f"{figures['first_text_ms_median']:>9.1f} {per_token:>9.2f} {each.evaluations:>7} "
            f"{figures['tokens_per_evaluation']:>12.2f} {figures['position_forwards_per_token']:>16.1f}"
        )
    return rows
