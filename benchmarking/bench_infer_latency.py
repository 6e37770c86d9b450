"""Latency and throughput of generation: the theory first, then the figures beside it.

Autoregression reads every weight, and its row's keys, once per token: memory bandwidth bounds a single text, and how
near a run comes to it is its MBU. Denoising sends many positions through at once: arithmetic bounds it, and how near a
run comes to it is its MFU. What both cost is told in passes through the network (NFE) and in token-forwards: positions
that went through per generated token.
"""

import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarking.machine import Machine, synchronize
from benchmarking.step_times import spread
from profiling.memory import has_cuda
from transformerlm.inference.autoregressive import AutoregressiveSettings, decode_autoregressive
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.decoded import Change, Cost, Decoded
from transformerlm.inference.diffusion import decode_diffusion
from transformerlm.inference.predictor import GenerationSettings, diffusion_settings
from transformerlm.inference.request import choose_mode, row_seed
from transformerlm.inference.sampling import row_generators
from transformerlm.inference.verified import decode_verified
from transformerlm.models.transformer import TransformerLM


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    model: TransformerLM
    objective: str
    mask_id: int | None
    """Of a model that knows masks."""
    settings: GenerationSettings

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    @property
    def mode(self) -> str:
        """How it generates."""
        return choose_mode(self.settings.mode, self.objective)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that a pass reads; of an embedding that is no head it reads a few rows only."""
        total = sum(parameter.nbytes for parameter in self.model.parameters())
        return total if self.model.shape.tie_embeddings else total - self.model.embedding.weight.nbytes


@dataclass(frozen=True, slots=True)
class Measurement:
    """One batch size, timed several times."""

    batch_size: int
    prompt_length: int
    generated_tokens: int
    """Tokens of one generation, over all rows."""
    cost: Cost
    """Of one generation."""
    seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...]
    """Time until the first text appeared; for diffusion, after the first denoising step."""
    peak_memory_bytes: int
    """On a GPU, of its memory during the timed runs; on a CPU, of the whole process so far."""

    @property
    def median_s(self) -> float:
        """Median time of one generation."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second at the median."""
        return self.generated_tokens / self.median_s

    @property
    def nfe(self) -> float:
        """Passes that each row took part in."""
        return self.cost.row_passes / self.batch_size


def measure(subject: Subject, prompt: Sequence[int], batch_size: int, repeats: tuple[int, int]) -> Measurement:
    """Time generations of `batch_size` rows that all continue the same prompt; none ends early.

    repeats: (untimed, timed) generations.
    """
    seconds, first_seconds = [], []
    warmup, timed = repeats
    if has_cuda():
        torch.cuda.reset_peak_memory_stats()
    for repeat in range(warmup + timed):
        run = replace(subject, settings=replace(subject.settings, seed=subject.settings.seed + repeat))
        clock = FirstToken()
        synchronize(subject.device)
        start = time.perf_counter()
        decoded = generate(run, prompt, batch_size, clock)
        synchronize(subject.device)
        if repeat >= warmup:
            seconds.append(time.perf_counter() - start)
            first_seconds.append(clock.time - start)
    generated = (subject.settings.total_length - len(prompt)) * batch_size
    memory = (
        torch.cuda.max_memory_allocated() if has_cuda() else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return Measurement(batch_size, len(prompt), generated, decoded.cost, tuple(seconds), tuple(first_seconds), memory)


class FirstToken:
    """A listener that notes when it first hears of a token."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """Note the time."""
        self.time = self.time or time.perf_counter()
        return ()


def generate(subject: Subject, prompt: Sequence[int], batch_size: int, listener: FirstToken) -> Decoded:
    """Generate once, to the full length."""
    settings, end_id = subject.settings, subject.model.shape.vocab_size - 2
    never_ending = Canvas.continuing(prompt, settings.total_length, settings.total_length)
    canvases = [never_ending] * batch_size
    generators = row_generators([row_seed(settings.seed, row) for row in range(batch_size)])
    common = (settings.sampling, generators, listener)
    if subject.mode == "diffusion":
        assert subject.mask_id is not None
        diffusion = diffusion_settings(settings, subject.objective, subject.mask_id, end_id)
        return decode_diffusion(subject.model, canvases, diffusion, *common)
    plain = AutoregressiveSettings(end_id, subject.mask_id, is_compiled=settings.is_compiled)
    if subject.mode == "verified":
        return decode_verified(subject.model, canvases, plain, *common, settings.draft_length)
    return decode_autoregressive(subject.model, canvases, plain, *common)


@dataclass(frozen=True, slots=True)
class Bound:
    """What the machine allows for one generation: the longer of reading and multiplying."""

    bytes_read: float
    flops: float
    machine: Machine

    @property
    def memory_s(self) -> float:
        """Seconds to read what has to be read."""
        return self.bytes_read / self.machine.bytes_per_second

    @property
    def compute_s(self) -> float:
        """Seconds to multiply what has to be multiplied."""
        return self.flops / self.machine.flops_per_second

    @property
    def seconds(self) -> float:
        """The bound."""
        return max(self.memory_s, self.compute_s)


def bound_of(subject: Subject, cost: Cost, batch_size: int, machine: Machine) -> Bound:
    """Count the bytes and operations of one generation.

    Every pass reads the weights; a cached pass reads the keys and values of its rows too, half full on average.
    """
    model, length = subject.model, subject.settings.total_length
    is_diffusion = subject.mode == "diffusion"
    is_cached = not is_diffusion or subject.settings.cache in ("prefix", "dual", "block")
    keys = model.kv_bytes_per_token() * length * (cost.row_passes if is_cached else 0) / (1 if is_diffusion else 2)
    head = 2 * model.shape.padded_vocab_size * model.shape.d_model
    trunk = model.flops_per_token(length, is_causal=not is_diffusion, is_training=False) - head
    flops = cost.token_forwards * trunk + cost.predictions * head
    return Bound(cost.passes * subject.weight_bytes + keys, flops, machine)


def describe_theory(subject: Subject, machine: Machine, prompt_length: int) -> list[str]:
    """Say what the hardware would allow: weights to read, operations to do, and the bound that follows."""
    model, settings = subject.model, subject.settings
    is_diffusion = subject.mode == "diffusion"
    flops = model.flops_per_token(settings.total_length, is_causal=not is_diffusion, is_training=False)
    lines = [
        f"machine              {machine.name}",
        f"peaks                {machine.describe_peaks()}",
        f"model                {model.parameter_count() / 1e6:.2f} M parameters, {subject.weight_bytes / 1e6:.1f} MB "
        f"read per pass, {subject.objective}",
        f"text                 {prompt_length} tokens given, {settings.total_length - prompt_length} generated",
        f"work per position    {flops / 1e6:.2f} MFLOP forward, "
        f"{1e6 * flops / machine.flops_per_second:.1f} us at the peak",
        f"weights once         {1e3 * subject.weight_bytes / machine.bytes_per_second:.3f} ms at the peak",
    ]
    if is_diffusion:
        lines.append(
            f"sampler              {settings.policy.name}, cache {settings.cache}, blocks of {settings.block_length}"
        )
        whole = settings.total_length * (settings.steps or settings.total_length - prompt_length)
        lines.append(f"without a cache      at most {whole * flops / 1e9:.1f} GFLOP per text")
    else:
        lines.append(f"KV cache             {model.kv_bytes_per_token()} bytes per position")
        lines.append(
            f"bound of one text    {machine.bytes_per_second / subject.weight_bytes:.0f} tokens/s, reading the weights "
            "once per token"
        )
    return lines


COLUMNS = (
    ("batch", "{:.0f}"),
    ("tokens/s", "{:.0f}"),
    ("median ms", "{:.1f}"),
    ("p10", "{:.1f}"),
    ("p90", "{:.1f}"),
    ("first ms", "{:.1f}"),
    ("ms/token", "{:.2f}"),
    ("NFE", "{:.1f}"),
    ("tok/pass", "{:.2f}"),
    ("fwd/token", "{:.1f}"),
    ("MB peak", "{:.0f}"),
    ("MBU %", "{:.0f}"),
    ("MFU %", "{:.0f}"),
    ("bound", "{:.0f}"),
)


def figures(measurement: Measurement, bound: Bound) -> dict[str, float]:
    """Return everything that was found out about one batch size, by the table's headings and more."""
    each = measurement
    low, high = spread(each.seconds)
    return {
        "batch": each.batch_size,
        "tokens/s": each.tokens_per_second,
        "median ms": 1e3 * each.median_s,
        "p10": 1e3 * low,
        "p90": 1e3 * high,
        "first ms": 1e3 * statistics.median(each.first_token_seconds),
        "ms/token": 1e3 * each.median_s * each.batch_size / each.generated_tokens,
        "NFE": each.nfe,
        "tok/pass": each.generated_tokens / each.cost.row_passes,
        "fwd/token": each.cost.token_forwards / each.generated_tokens,
        "MB peak": each.peak_memory_bytes / 1e6,
        "MBU %": 100 * bound.memory_s / each.median_s,
        "MFU %": 100 * bound.compute_s / each.median_s,
        "bound": each.generated_tokens / bound.seconds,
        "generated_tokens": each.generated_tokens,
        "passes": each.cost.passes,
        "token_forwards": each.cost.token_forwards,
    }


def format_table(rows: Sequence[dict[str, float]]) -> list[str]:
    """Lay figures out as a table; the last column is what the theory allows [tokens/s]."""
    table = [[name for name, _ in COLUMNS]]
    table += [[form.format(row[name]) for name, form in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
