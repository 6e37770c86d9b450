"""What several tokens at a time and caches cost and do to the stories of one checkpoint: time beside exact quality.

    python -m benchmarking.quality_frontier --checkpoint runs/NAME --baseline runs/AUTOREGRESSIVE

The first line, one token per step and no cache, is what all others are held against. A text fills the model's context,
one story behind the other, as packed training rows do. Speed: texts one at a time, then in batches, the samplers taking
turns. Quality: the stories of those batches, but for the last one of each text, which is cut off (story_quality.py says
how the grammar grades them). Two samplers are called equal if their nats per token differ by no more than 0.01 and the
entropies of their samples by no more than 1 %; the standard error of the difference says what that is worth.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from tqdm import tqdm

from benchmarking.cache_divergence import measure_divergence
from benchmarking.machine import inspect_machine
from benchmarking.story_quality import Quality, grade_texts
from cli.host_memory import keep_freed_memory
from transformerlm.inference.plan import Policy
from transformerlm.inference.predictor import GenerationCost, GenerationSettings, Predictor, diffusion_settings
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.models import few_rows
from transformerlm.tokenizer import END_OF_TEXT

EXACT = "one token per step, no cache"
EQUAL_NATS, EQUAL_ENTROPY = 0.01, 0.01

BIDIRECTIONAL_BLOCK_LENGTH = 32
POLICIES: tuple[tuple[str, Policy], ...] = (
    ("threshold 0.99", Policy("threshold", threshold=0.99)),
    ("threshold 0.95", Policy("threshold", threshold=0.95)),
    ("threshold 0.8", Policy("threshold", threshold=0.8)),
    ("entropy bound 0.1", Policy("entropy_bound", entropy_bound=0.1)),
    ("entropy bound 0.5", Policy("entropy_bound", entropy_bound=0.5)),
)


@dataclass(slots=True)
class Line:
    """One sampler, and what was found out about it."""

    name: str
    predictor: Predictor
    settings: GenerationSettings
    alone: list[GenerationCost] = field(default_factory=list)
    """Of single texts."""
    together: list[GenerationCost] = field(default_factory=list)
    """Of batches."""
    stories: list[str] = field(default_factory=list)

    def quality(self) -> Quality:
        """Let the grammar grade the stories."""
        return grade_texts(self.stories, self.predictor.tokenizer)


def seconds_per_token(costs: Sequence[GenerationCost]) -> float:
    """Return the median time of a generated token."""
    return statistics.median(cost.seconds / cost.tokens for cost in costs)


def make_lines(predictor: Predictor, temperature: float, baseline: Predictor | None) -> list[Line]:
    """Return the samplers that a checkpoint allows: with each of its caches, then several tokens at a time."""
    shape = predictor.model.shape
    is_block_causal = predictor.objective == "block_diffusion"
    length = shape.block_length if is_block_causal else BIDIRECTIONAL_BLOCK_LENGTH
    sampling = SamplingSettings(temperature)
    base = GenerationSettings(shape.context_length, sampling, block_length=length, cache="none", ignore_eos=True)
    caches = ("block",) if is_block_causal else ("prefix", "dual")
    lines = [Line(EXACT, predictor, base)]
    lines += [Line(f"one token per step, {cache}", predictor, replace(base, cache=cache)) for cache in caches]
    fast = replace(base, cache=caches[-1])
    half = replace(fast, steps=math.ceil(shape.context_length / 2))
    lines.append(Line(f"2 tokens per step, {caches[-1]}", predictor, half))
    lines += [Line(f"{name}, {caches[-1]}", predictor, replace(fast, policy=policy)) for name, policy in POLICIES]
    if baseline is not None:
        alone = GenerationSettings(baseline.model.shape.context_length, sampling, ignore_eos=True)
        lines.append(Line("autoregressive, KV cache", baseline, alone))
    return lines


def time_texts(lines: Sequence[Line], rounds: int) -> None:
    """Let every sampler write one text after the other, in turns; the first round does not count."""
    for turn in range(rounds + 1):
        for line in lines:
            line.predictor.generate([""], line.settings, seeds=[turn])
            if turn:
                line.alone.append(line.predictor.last_cost)


def write_stories(lines: Sequence[Line], num_texts: int, batch_size: int) -> None:
    """Let every sampler write the same number of texts, one batch after the other, in turns."""
    batches = [range(start, min(start + batch_size, num_texts)) for start in range(0, num_texts, batch_size)]
    for seeds, line in tqdm(list(product(batches, lines)), desc="batches", file=sys.stderr, disable=None):
        texts = line.predictor.generate([""] * len(seeds), line.settings, seeds=seeds)
        line.together.append(line.predictor.last_cost)
        line.stories += [story for text in texts for story in whole_stories(text.text)]


def whole_stories(text: str) -> list[str]:
    """Return what stands between end-of-text tokens, without the last piece, which is cut off unless it is the only."""
    pieces = text.split(END_OF_TEXT)
    return pieces[:-1] or pieces


def is_approximate(line: Line) -> bool:
    """Tell whether a cache, and nothing else, makes a line differ from the first."""
    return line.settings.cache in ("prefix", "dual") and line.settings == replace(
        line.settings, steps=None, policy=Policy()
    )


def diverge(line: Line) -> float:
    """Return how far cached predictions are from exact ones, over four texts [nats per open position]."""
    predictor, settings = line.predictor, line.settings
    mask_id = predictor.tokenizer.mask_id
    assert mask_id is not None, "a diffusion checkpoint's tokenizer has a mask token"
    diffusion = diffusion_settings(settings, predictor.objective, mask_id, predictor.end_id(settings))
    canvases = [predictor.lay_out("", settings)] * 4
    return measure_divergence(predictor.model, canvases, diffusion, settings.sampling, range(4))


def is_equal(quality: Quality, reference: Quality) -> bool:
    """Tell whether texts are no less likely than those of a reference, and no less and no more varied."""
    entropy = quality.sample_entropy / reference.sample_entropy - 1
    return quality.nats_per_token - reference.nats_per_token <= EQUAL_NATS and abs(entropy) <= EQUAL_ENTROPY


def format_line(line: Line, exact: Line, reference: Quality) -> tuple[str, ...]:
    """Lay out one sampler beside the first one, whose quality is the reference."""
    quality, cost = line.quality(), line.alone
    tokens = sum(each.tokens for each in cost)
    alone, together = seconds_per_token(line.alone), seconds_per_token(line.together)
    excess = quality.nats_per_token - reference.nats_per_token
    error = math.hypot(quality.nats_per_token_error, reference.nats_per_token_error)
    entropy = quality.sample_entropy / reference.sample_entropy - 1
    return (
        line.name,
        f"{statistics.mean(each.evaluations for each in cost):.0f}",
        f"{sum(each.work.token_forwards for each in cost) / tokens:.1f}",
        f"{1e3 * alone:.2f}",
        f"{seconds_per_token(exact.alone) / alone:.1f}",
        f"{1e3 * together:.2f}",
        f"{seconds_per_token(exact.together) / together:.1f}",
        f"{100 * quality.agreed_share:.1f} ± {100 * quality.agreed_share_error:.1f}",
        f"{100 * quality.valid_share:.0f}",
        f"{quality.nats_per_token:.3f}",
        f"{excess:+.3f} ± {error:.3f}",
        f"{100 * entropy:+.1f} %",
        "" if line is exact else "yes" if is_equal(quality, reference) else "no",
        f"{diverge(line):.4f}" if is_approximate(line) else "",
    )


HEADER = (
    "",
    "NFE",
    "fwd/token",
    "ms/token",
    "faster",
    "in batches",
    "faster",
    "agreed %",
    "stories %",
    "nats",
    "excess",
    "entropy",
    "equal",
    "KL",
)


LEGEND = f"""
NFE: passes through the network; fwd/token: positions through it per generated token; ms/token: of one text at a time;
in batches: of {{batch_size}}; agreed: share of what was written for a story that some story shares; nats: -log p per
token of that; excess: nats beyond the first line's; equal: excess at most {EQUAL_NATS} and entropy within
{EQUAL_ENTROPY:.0%}; KL: of cached predictions to exact ones"""


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows under HEADER, in columns."""
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    for row in (HEADER, *rows):
        first, *rest = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join((row[0].ljust(len(first)), *rest)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one checkpoint; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a diffusion run on the stories")
    parser.add_argument("--baseline", help="an autoregressive run to put beside it")
    parser.add_argument("--texts", type=int, default=64, help="texts that each sampler is graded by (default: 64)")
    parser.add_argument("--batch-size", type=int, default=8, help="how many of them at once (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="single texts that each is timed on (default: 5)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of all samplers (default: 0.7)")
    options = parser.parse_args(argv)
    keep_freed_memory()  # as the commands do
    few_rows.load()  # as after some seconds of generating
    machine = inspect_machine(torch.device("cpu"))
    baseline = Predictor.from_checkpoint(options.baseline, "cpu") if options.baseline else None
    lines = make_lines(Predictor.from_checkpoint(options.checkpoint, "cpu"), options.temperature, baseline)
    time_texts(lines, options.rounds)
    write_stories(lines, options.texts, options.batch_size)
    print(
        f"{machine.name}\n{options.texts} texts each from {options.checkpoint}, temperature {options.temperature}; "
        f"{len(lines[0].stories)} stories of the first line\n"
    )
    reference = lines[0].quality()
    print_table([format_line(line, lines[0], reference) for line in lines])
    print(LEGEND.format(batch_size=options.batch_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
