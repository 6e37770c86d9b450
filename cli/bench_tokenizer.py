"""transformerlm-bench-tokenizer: measure the tokenizer, alone or against the others that are installed."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from benchmarking.bench_tokenizer import Benchmark, Corpus, Plan, Row
    from config.roots import BenchTokenizerConfig
    from config.sections.tokenizer_benchmark import TokenizerBenchmarkSection
    from transformerlm.tokenizer import Tokenizer

COMMAND = Command(
    name="transformerlm-bench-tokenizer",
    summary="Measure encoding, decoding and training of tokenizers: throughput, memory, latency of a prompt.",
    config_name="BenchTokenizerConfig",
    override="benchmark.threads=[1,4]",
    example="""\
examples:
  transformerlm-bench-tokenizer --config config/resources/bench_tokenizer.toml
      our own tokenizer on the embedded stories
  transformerlm-bench-tokenizer --config config/resources/bench_tokenizer.toml --compare --json figures.json \\
      --set benchmark.text=english.txt --set benchmark.megabytes=50.0 --set benchmark.vocab_size=32000
      against every other tokenizer that is installed (uv sync --group peers), ids compared before anything is timed
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, bench, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this command has."""
    parser.add_argument("--compare", action="store_true", help="measure the other tokenizers that are installed, too")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")


def bench(config: "BenchTokenizerConfig", options: argparse.Namespace) -> int:
    """Check, measure and print; returns the exit code."""
    from benchmarking.bench_tokenizer import Benchmark
    from benchmarking.tokenizer_peers import installed_libraries
    from benchmarking.tokenizer_report import describe_setting
    from benchmarking.tokenizer_tasks import OURS

    libraries = installed_libraries()
    if not options.compare:
        libraries = {OURS: libraries[OURS]}
    plan = make_plan(config.benchmark)
    with tempfile.TemporaryDirectory(prefix="bench_tokenizer_") as folder:
        corpus = make_corpus(config.benchmark, Path(folder))
        setting = describe_setting(plan, corpus, libraries)
        print("\n".join(setting), flush=True)
        tables = run(Benchmark(plan, corpus, tuple(libraries)), corpus)
    if options.json:
        figures = {
            "setting": setting,
            "plan": asdict(plan),
            "tables": [[row.to_json() for row in rows] for rows in tables],
        }
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def make_plan(section: "TokenizerBenchmarkSection") -> "Plan":
    """Return the plan of a configuration, without more threads than there are cores."""
    from benchmarking.bench_tokenizer import Plan

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = tuple(number for number in section.threads if number <= cores)
    if len(threads) < len(section.threads):
        print(f"benchmark.threads: only {cores} cores here; measuring {list(threads)}", file=sys.stderr)
    if not threads:
        raise ValueError(f"benchmark.threads: {list(section.threads)} need more than the {cores} cores here; use [1]")
    keys = ("tasks", "rounds", "passes", "patience_s", "vocab_size", "backend")
    return Plan(threads=threads, **{key: section.model_dump()[key] for key in keys})


def make_corpus(section: "TokenizerBenchmarkSection", folder: Path) -> "Corpus":
    """Read or generate the text, and load or learn the vocabulary."""
    from benchmarking.bench_tokenizer import cut_text, prepare_corpus
    from benchmarking.tokenizer_tasks import read_text

    size = None if section.megabytes is None else int(section.megabytes * 1e6)
    if section.text:
        text, name = read_text(Path(section.text)), Path(section.text).name
        text = text if size is None else cut_text(text, size)
    else:
        assert size is not None, "the schema requires it"
        text, name = generate_stories(size), "embedded stories"
    return prepare_corpus(folder, name, text, int(section.check_megabytes * 1e6), make_tokenizer(section, text))


def generate_stories(size: int) -> str:
    """Return so many bytes of stories, an end-of-text token after each."""
    from itertools import count

    from transformerlm.synthetic import stories
    from transformerlm.tokenizer import END_OF_TEXT

    parts: list[str] = []
    indices, length = count(), 0
    while length < size:
        parts.append(stories.story("train", next(indices)) + END_OF_TEXT)
        length += len(parts[-1].encode())
    return "".join(parts)


def make_tokenizer(section: "TokenizerBenchmarkSection", text: str) -> "Tokenizer":
    """Load the vocabulary, or learn one from the text."""
    from transformerlm.tokenizer import END_OF_TEXT, Tokenizer, train_bpe

    if section.tokenizer:
        return Tokenizer.load(section.tokenizer)
    return train_bpe([text], section.vocab_size, [END_OF_TEXT])


def run(benchmark: "Benchmark", corpus: "Corpus") -> list[list["Row"]]:
    """Check and measure, printing each table as it is there; returns all rows."""
    from tqdm import tqdm

    from benchmarking.tokenizer_report import describe_check, format_rows, summarize

    with tqdm(desc="benchmark", unit="process", file=sys.stderr, disable=None, total=benchmark.count_jobs()) as bar:

        def on_job(words: str) -> None:
            bar.set_postfix_str(words)
            bar.update()

        benchmark.on_job = on_job
        checked = benchmark.check()
        if lines := describe_check(checked, corpus):
            bar.write("\n".join(["", *lines]), file=sys.stdout)
        tables = []
        for rows in benchmark.measure(checked):
            tables.append(rows)
            bar.write("\n".join(["", *format_rows(rows, corpus)]), file=sys.stdout)
            sys.stdout.flush()
    if lines := summarize(tables):
        print("\n" + "\n".join(lines), flush=True)
    return tables


if __name__ == "__main__":
    sys.exit(main())
