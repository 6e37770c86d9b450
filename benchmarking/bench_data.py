"""Measure preparing a corpus, and the three pipelines feeding a model that does nothing.

    python -m benchmarking.bench_data --megabytes 300
    python -m benchmarking.bench_data --text data/text/corpus.txt

Without --text the corpus is made of the embedded stories, one JSON object a line: 20 MB of different ones, again and
again. The bound is what the tokenizer alone does with the same documents, on one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from cli.sources import RowShape, build_train_batches, prefetched
from cli.tokens import encode_text, load_tokenizer
from config.sections.data import MegatronSection, PackedSection, RowsSection, TokenizerFilesSection
from trainkit.data.documents import Shard
from transformerlm.synthetic import stories
from transformerlm.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
STORIES_TOKENIZER = ROOT / "config" / "resources" / "tokenizers" / "stories_4k"
DISTINCT_BYTES = 20 * 10**6
SHAPE = RowShape(context_length=512, lookahead=1, batch_size=64)
MEASURED_S = 5.0
SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Preparing:
    """What one run of transformerlm-prepare-data took."""

    text_bytes: int
    tokens: int
    seconds: float
    peak_mebibytes: float
    """Of all its processes together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the corpus (300)")
    parser.add_argument("--text", help="a text file, paragraphs separated by empty lines, instead of the stories")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that prepare (one per core)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench_data_") as folder:
        measure(Path(folder), options)
    return 0


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Measure everything in a folder, and print it."""
    tokenizer = load_tokenizer(tokenizer_section())
    Tokenizer(tokenizer.vocabulary, "numba").encode_array("")  # compiles the kernels where nobody has yet
    corpora = {}
    for megabytes in (options.megabytes / 10, options.megabytes):
        corpora[megabytes] = folder / f"corpus_{megabytes}.jsonl"
        write_corpus(corpora[megabytes], int(megabytes * 10**6), options.text)
    text_bytes, tokens, seconds = measure_tokenizer(corpora[options.megabytes], tokenizer)
    bytes_per_token = text_bytes / tokens
    print(f"{options.megabytes} MB, {bytes_per_token:.2f} bytes per token, {os.cpu_count()} cores\n")
    print(f"{'':<34}{'text MB/s':>10}{'tokens/s':>12}{'peak MiB':>10}")
    print_line("tokenizer alone, one thread", text_bytes / seconds, tokens / seconds)
    runs = []
    for megabytes, corpus in corpora.items():
        done = measure_preparing(corpus, folder / f"out_{megabytes}", options.workers)
        name = f"prepare {megabytes:g} MB, {options.workers} processes"
        print_line(name, done.text_bytes / done.seconds, done.tokens / done.seconds, done.peak_mebibytes)
        runs.append(done)
    small, large = runs
    seconds = large.seconds - small.seconds
    name = "the same, start and end aside"
    print_line(name, (large.text_bytes - small.text_bytes) / seconds, (large.tokens - small.tokens) / seconds)
    for name, section in pipelines(corpora[options.megabytes], folder / f"out_{options.megabytes}", tokenizer).items():
        tokens_per_second = measure_pipeline(section, tokenizer)
        print_line(f"{name} -> null model", tokens_per_second * bytes_per_token, tokens_per_second)


def print_line(name: str, bytes_per_second: float, tokens_per_second: float, peak_mebibytes: float = 0.0) -> None:
    """Print one line of the table."""
    peak = f"{peak_mebibytes:>10.0f}" if peak_mebibytes else ""
    print(f"{name:<34}{bytes_per_second / 1e6:>10.1f}{tokens_per_second:>12.0f}{peak}", flush=True)


def write_corpus(path: Path, size: int, text_path: str | None) -> None:
    """Write about `size` bytes of documents, one JSON object a line."""
    documents = cycle(read_documents(text_path))
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            file.writelines(json.dumps({"text": text}) + "\n" for text in islice(documents, 1000))


def read_documents(text_path: str | None) -> Iterator[str]:
    """Yield different documents: paragraphs of a text, or stories."""
    if text_path is not None:
        yield from filter(None, Path(text_path).read_text(encoding="utf-8").split("\n\n"))
        return
    size, index = 0, 0
    while size < DISTINCT_BYTES:
        story = stories.story("train", index)
        yield story
        size, index = size + len(story), index + 1


def measure_tokenizer(corpus: Path, tokenizer: Tokenizer) -> tuple[int, int, float]:
    """Return the bytes and tokens of some documents, and the seconds that encoding them took."""
    with corpus.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 50_000)]
    encode_text(tokenizer, " ".join(texts))  # enough for the kernels to be loaded
    start_s = time.perf_counter()
    tokens = sum(len(encode_text(tokenizer, text)) for text in texts)
    return sum(len(text.encode()) for text in texts), tokens, time.perf_counter() - start_s


def measure_preparing(corpus: Path, output: Path, workers: int) -> Preparing:
    """Run the command as a process of its own."""
    overrides = [
        "data.dataset_name=json",
        f"data.data_files={corpus}",
        *(f"data.tokenizer.{key}={path}" for key, path in tokenizer_section()),
        f"prepare.output_dir={output}",
        f"prepare.num_workers={workers}",
    ]
    arguments = [part for override in overrides for part in ("--set", override)]
    config = ROOT / "config" / "resources" / "prepare_data_text.toml"
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "cli.prepare_data", "--config", str(config), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak_mebibytes = 0.0
    while process.poll() is None:
        peak_mebibytes = max(peak_mebibytes, resident_mebibytes(process.pid))
        time.sleep(SAMPLE_S)
    seconds = time.perf_counter() - start_s
    assert process.returncode == 0, "what went wrong is on standard error"
    splits = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["splits"].values()
    return Preparing(
        sum(split["text_bytes"] for split in splits),
        sum(split["tokens"] for split in splits),
        seconds,
        peak_mebibytes,
    )


def resident_mebibytes(pid: int) -> float:
    """Return the memory that a process and its children hold now, as Linux tells it."""
    pages, task = 0, Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(OSError):  # a process that has just ended
        pids = [pid, *map(int, task.read_text().split())]
        pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def tokenizer_section() -> TokenizerFilesSection:
    """Return the stories' tokenizer."""
    return TokenizerFilesSection(
        vocab_path=str(STORIES_TOKENIZER / "vocab.json"),
        merges_path=str(STORIES_TOKENIZER / "merges.txt"),
        special_tokens_path=str(STORIES_TOKENIZER / "special_tokens.json"),
    )


def pipelines(
    corpus: Path, prepared: Path, tokenizer: Tokenizer
) -> dict[str, PackedSection | RowsSection | MegatronSection]:
    """Return the three pipelines over the same documents."""
    files = {"dataset_name": "json", "data_files": str(corpus), "tokenizer": tokenizer_section()}
    return {
        "packed": PackedSection(pipeline_mode="packed", **files),
        "rows": RowsSection(pipeline_mode="rows", pad_token_id=tokenizer.end_of_text_id, **files),
        "megatron": MegatronSection(
            pipeline_mode="megatron",
            tokenizer=tokenizer_section(),
            megatron_train_prefix=str(prepared / "text_train_text_document"),
            megatron_val_prefix=str(prepared / "text_validation_text_document"),
        ),
    }


def measure_pipeline(section: PackedSection | RowsSection | MegatronSection, tokenizer: Tokenizer) -> float:
    """Return the tokens per second, padding aside, that a consumer gets who does nothing with them."""
    batches = build_train_batches(section, tokenizer, SHAPE, Shard())
    with prefetched(batches, section, pin_memory=False) as source:
        next(source)
        tokens, start_s = 0, time.perf_counter()
        while time.perf_counter() - start_s < MEASURED_S:
            batch = next(source)
            tokens += np.count_nonzero(batch["valid"].numpy()) if "valid" in batch else batch["tokens"].numel()
        return tokens / (time.perf_counter() - start_s)


if __name__ == "__main__":
    sys.exit(main())
