"""Our samplers beside others', side by side in one run: `python -m benchmarking.compare_inference`.

    1  autoregression, the same small network in transformers, with its dynamic and its static cache
    2  autoregression on weights that fit no cache, beside the time to read them once
    3  denoising without a cache, beside LLaDA's sampler as published
    4  denoising with caches: what they save, on random weights of the same shape

Rivals take turns with ours, run by run, so that a busy machine disturbs both alike. Part 1 needs transformers (`uv
sync --group peers`). Speed does not depend on what weights hold, except where a sampler decides by confidence:
quality_frontier.py measures those, and what they do to the texts of a checkpoint.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarking.bench_infer_latency import FirstToken, Subject, generate
from benchmarking.llada_reference import llada_generate
from benchmarking.machine import inspect_machine
from cli.host_memory import keep_freed_memory
from transformerlm.inference.predictor import GenerationSettings
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.models import few_rows
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM

SMALL = ModelShape(4096, 512, 128, 4, 4, 4, 384, qk_norm=True, tie_embeddings=True)  # the network of train.toml
LARGE = ModelShape(8192, 128, 1024, 12, 16, 16, 2816, tie_embeddings=True)  # 163 M parameters, 653 MB: fits no cache
MASK = 4095


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated timings of one contender."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def take_turns(contenders: Sequence[tuple[str, Callable[[], object]]], rounds: int) -> list[Timing]:
    """Time contenders in turns, after one round that does not count."""
    timings = [Timing(name, []) for name, _ in contenders]
    for turn in range(rounds + 1):
        for timing, (_, work) in zip(timings, contenders, strict=True):
            start = time.perf_counter()
            work()
            if turn:
                timing.seconds.append(time.perf_counter() - start)
    return timings


def random_model(shape: ModelShape) -> TransformerLM:
    """Make a network with random weights."""
    torch.manual_seed(0)
    return TransformerLM(shape).eval()


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(f"\n{title}\n")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def compare_with_transformers(rounds: int) -> None:
    """Part 1: tokens per second of both, batch 1 and 16, 32 tokens given and 96 drawn at temperature 1."""
    try:
        from benchmarking.transformers_peer import to_transformers

        model = random_model(replace(SMALL, context_length=160))
        peer = to_transformers(model)
    except ImportError as error:
        print(f"\npart 1 skipped: {error}; install the group peers")
        return
    import transformers

    settings = GenerationSettings(128)
    ours = Subject(model, "autoregressive", None, settings)
    compiled = replace(ours, settings=replace(settings, is_compiled=True))
    rows = []
    for batch in (1, 16):
        prompt = torch.arange(1, 33).expand(batch, 32)

        def theirs(cache: str, prompt: torch.Tensor = prompt) -> Callable[[], object]:
            options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 96}
            mask = torch.ones_like(prompt)
            return lambda: peer.generate(prompt, attention_mask=mask, cache_implementation=cache, **options)

        timings = take_turns(
            [
                ("transformerlm", lambda batch=batch: generate(ours, list(range(1, 33)), batch, FirstToken())),
                (
                    "transformerlm, compiled",
                    lambda batch=batch: generate(compiled, list(range(1, 33)), batch, FirstToken()),
                ),
                ("transformers, dynamic cache", theirs("dynamic")),
                ("transformers, static cache", theirs("static")),
            ],
            rounds,
        )
        for timing in timings:
            ratios = [timing.median / mine.median for mine in timings[:2]]
            rows.append((timing.name, str(batch), f"{96 * batch / timing.median:.0f}", *(f"{r:.1f}" for r in ratios)))
    title = (
        f"1  autoregression, {model.parameter_count() / 1e6:.2f} M parameters, transformers {transformers.__version__}"
    )
    show(title, ("", "batch", "tokens/s", "ours is faster by", "compiled by"), rows)


def compare_with_bandwidth(rounds: int) -> None:
    """Part 2: seconds per token of a large network beside the time to read as many bytes, which take turns too.

    A shared machine's bandwidth changes within seconds: the ratios are those of neighbouring turns.
    """
    model = random_model(LARGE)
    subject = Subject(model, "autoregressive", None, GenerationSettings(48))
    compiled = replace(subject, settings=replace(subject.settings, is_compiled=True))
    numbers = torch.ones(subject.weight_bytes // 4)
    reading, *timings = take_turns(
        [
            ("reading", lambda: [numbers.sum() for _ in range(44)]),
            ("as it comes", lambda: generate(subject, [1, 2, 3, 4], 1, FirstToken())),
            ("compiled", lambda: generate(compiled, [1, 2, 3, 4], 1, FirstToken())),
        ],
        rounds,
    )
    rows = []
    for timing in timings:
        ratio = statistics.median(taken / bound for taken, bound in zip(timing.seconds, reading.seconds, strict=True))
        milliseconds = (1e3 * each.median / 44 for each in (reading, timing))
        rows.append(
            (timing.name, *(f"{each:.1f}" for each in milliseconds), f"{ratio:.2f}", f"{44 / timing.median:.1f}")
        )
    size = f"{model.parameter_count() / 1e6:.0f} M parameters, {subject.weight_bytes / 1e6:.0f} MB per token"
    title = f"2  {size}, read by a sum at {44 * subject.weight_bytes / reading.median / 1e9:.1f} GB/s"
    show(title, ("", "read once, ms", "a token, ms", "ratio", "tokens/s"), rows)


def compare_with_llada(rounds: int) -> None:
    """Part 3: the published sampler and ours, both without a cache: 64 tokens given, 256 drawn, blocks of 32."""
    model, rows = random_model(SMALL), []
    settings = GenerationSettings(320, SamplingSettings(1.0), steps=256, block_length=32, cache="none")
    subject = Subject(model, "masked_diffusion", MASK, settings)
    for batch, steps in ((1, 256), (1, 64), (4, 64)):
        ours = replace(subject, settings=replace(settings, steps=steps))
        prompts = torch.arange(1, 65).expand(batch, 64)
        timings = take_turns(
            [
                ("ours", lambda ours=ours, batch=batch: generate(ours, list(range(1, 65)), batch, FirstToken())),
                (
                    "published",
                    lambda prompts=prompts, steps=steps: llada_generate(model, prompts, 320, 32, steps, 1.0, MASK),
                ),
            ],
            rounds,
        )
        mine, published = (256 * batch / timing.median for timing in timings)
        rows.append((f"batch {batch}, {steps} steps", f"{published:.0f}", f"{mine:.0f}", f"{mine / published:.2f}"))
    show("3  denoising without a cache [tokens/s]", ("", "published", "ours", "faster by"), rows)


CACHES = (("none", 1), ("prefix", 1), ("dual", 1), ("dual", 3), ("block", 1), ("block", 3))


def compare_caches(rounds: int) -> None:
    """Part 4: what caches and several tokens per step save: 64 tokens given, 256 drawn, blocks of 32."""
    model, rows = random_model(SMALL), []
    runs = []
    for cache, per_step in CACHES:
        objective = "block_diffusion" if cache == "block" else "masked_diffusion"
        steps = -(-32 // per_step) * 8
        settings = GenerationSettings(320, steps=steps, block_length=32, cache=cache)
        runs.append((cache, per_step, Subject(model, objective, MASK, settings)))
    contenders = [(cache, lambda run=run: generate(run, list(range(1, 65)), 1, FirstToken())) for cache, _, run in runs]
    plain = Subject(model, "autoregressive", None, GenerationSettings(320))
    contenders.append(("autoregressive", lambda: generate(plain, list(range(1, 65)), 1, FirstToken())))
    timings = take_turns(contenders, rounds)
    costs = [generate(run, list(range(1, 65)), 1, FirstToken()).cost for _, _, run in (*runs, ("", 1, plain))]
    base_forwards, base_time = costs[0].token_forwards, timings[0].median
    names = [f"{cache}, {per_step} per step" for cache, per_step in CACHES] + ["autoregressive, KV cache"]
    for name, timing, cost in zip(names, timings, costs, strict=True):
        rows.append(
            (
                name,
                str(cost.passes),
                f"{cost.token_forwards / 256:.1f}",
                f"{base_forwards / cost.token_forwards:.1f}",
                f"{1e3 * timing.median:.0f}",
                f"{base_time / timing.median:.1f}",
                f"{256 / timing.median:.0f}",
            )
        )
    header = ("", "passes", "forwards/token", "fewer by", "ms", "faster by", "tokens/s")
    show("4  caches, random weights, batch 1, 64 + 256 tokens in blocks of 32", header, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparisons; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="1234", help="which parts to run (default: 1234)")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each contender")
    options = parser.parse_args(argv)
    keep_freed_memory()  # as the commands do
    few_rows.load()  # as after some seconds of generating
    machine = inspect_machine(torch.device("cpu"))
    print(f"{machine.name}\n{machine.describe_peaks()}")
    parts = {"1": compare_with_transformers, "2": compare_with_bandwidth, "3": compare_with_llada, "4": compare_caches}
    for name, part in parts.items():
        if name in options.parts:
            part(options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
