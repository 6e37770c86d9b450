"""transformerlm-prepare-data: turn any corpus into tokens on disk, in Megatron-LM's format."""

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.command import Command, report, run_command

if TYPE_CHECKING:
    from cli.corpora import Corpus
    from config.roots import PrepareDataConfig
    from trainkit.data.preparing import Preparation, Progress
    from transformerlm.tokenizer import Tokenizer

COMMAND = Command(
    name="transformerlm-prepare-data",
    summary="Tokenize a corpus once, in parallel, into Megatron-LM's .bin and .idx files.",
    config_name="PrepareDataConfig",
    override="prepare.validation_share=0.05",
    example="""\
examples:
  transformerlm-prepare-data --config config/resources/prepare_data.toml
      a corpus of the Hugging Face Hub
  transformerlm-prepare-data --config config/resources/prepare_data_text.toml
      the text files in data/text/
  transformerlm-prepare-data --config config/resources/prepare_data.toml --fetch-only
      only fetch the dataset, so that HF_DATASETS_OFFLINE=1 works afterwards

A run that was killed is continued by the same command. Train on the result with data.pipeline_mode = "megatron".
""",
)
SPLITS = ("train", "validation")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, prepare, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is no part of the configuration."""
    parser.add_argument("--fetch-only", action="store_true", help="fetch a Hub dataset into its cache, and exit")


def prepare(config: "PrepareDataConfig", options: argparse.Namespace) -> int:
    """Prepare the corpus, or say that it is prepared; returns the exit code."""
    if options.fetch_only:
        return fetch(config)
    from cli.corpora import Reading, open_corpus
    from cli.prepared import read_settings
    from cli.tokens import load_tokenizer
    from trainkit.errors import WorkerError

    tokenizer = load_tokenizer(config.data.tokenizer)
    corpus = open_corpus(config.data, Reading(config.data.split))
    settings = describe_settings(config, tokenizer, corpus)
    folder = Path(config.prepare.output_dir)
    if folder.exists():
        if read_settings(folder) == settings:
            print(f"{folder} is prepared already, with these settings and files")
            return 0
        raise ValueError(
            f"prepare.output_dir: {folder} exists and was made from other settings or files, or is something else; "
            "choose another folder, or delete it"
        )
    try:
        run(config, tokenizer, corpus, settings)
    except WorkerError as error:
        remedy = "run the same command again to go on, with fewer prepare.num_workers if it happens again"
        return report([f"{error}; {remedy}"], exit_code=1)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def fetch(config: "PrepareDataConfig") -> int:
    """Load a Hub dataset whole, which is what fills its cache: streaming keeps nothing."""
    from cli import hub
    from cli.corpora import find_files
    from config.sections.data import SYNTHETIC

    data = config.data
    if data.dataset_name in SYNTHETIC or find_files(data, data.split) is not None:
        print(f"{data.dataset_name} needs no fetching")
        return 0
    rows = hub.load_dataset(data, data.split, streaming=False)
    print(f"fetched {data.dataset_name} {data.split}, {len(rows)} records; HF_DATASETS_OFFLINE=1 works from here on")
    return 0


def describe_settings(config: "PrepareDataConfig", tokenizer: "Tokenizer", corpus: "Corpus") -> dict[str, Any]:
    """Return everything that the tokens depend on."""
    data = config.data.model_dump(mode="json", exclude={"on_bad_record", "tokenizer"})
    section = config.prepare
    return {
        "data": data,
        "files": {file: Path(file).stat().st_size for file in corpus.files},
        "tokenizer_sha256": tokenizer.fingerprint(),
        "name": section.name,
        "tokenizer_name": section.tokenizer_name,
        "validation_share": section.validation_share,
    }


def run(config: "PrepareDataConfig", tokenizer: "Tokenizer", corpus: "Corpus", settings: dict[str, Any]) -> None:
    """Prepare in a folder beside the final one, and rename it when everything is in it."""
    from cli.prepared import Description, copy_tokenizer, write_hashes, write_manifest

    section = config.prepare
    final = Path(section.output_dir)
    folder = final.with_name(f"{final.name}.partial")
    preparation = open_preparation(config, tokenizer, corpus, settings)
    started_at_s, done_before = time.perf_counter(), preparation.progress.text_bytes
    with progress_bar(corpus) as on_progress:
        preparation.run(corpus.records, section.num_workers, on_progress, config.data.max_documents)
    counts = preparation.progress.counts
    splits = dict(zip(split_names(config), counts, strict=True))
    if not any(split.documents for split in counts):
        raise ValueError(f"data: {config.data.dataset_name} {config.data.split} holds no document, so 0 tokens")
    write_manifest(folder, Description(settings, splits, preparation.progress.bad_records), tokenizer)
    copy_tokenizer(config.data.tokenizer, folder, section.tokenizer_name)
    (folder / SETTINGS_FILE).unlink()
    write_hashes(folder, sorted(path.name for path in folder.iterdir()))
    folder.rename(final)
    seconds = time.perf_counter() - started_at_s
    say_done(splits, preparation.progress, (preparation.progress.text_bytes - done_before) / seconds, final)


SETTINGS_FILE = "settings.json"


def split_names(config: "PrepareDataConfig") -> list[str]:
    """Return the names of the files, without .bin or .idx; nothing held out makes no validation files."""
    splits = SPLITS if config.prepare.validation_share > 0 else SPLITS[:1]
    return [f"{config.prepare.name}_{split}_text_document" for split in splits]


def open_preparation(
    config: "PrepareDataConfig", tokenizer: "Tokenizer", corpus: "Corpus", settings: dict[str, Any]
) -> "Preparation":
    """Open unfinished work of the same settings, or begin."""
    import json

    from cli.output import remark
    from cli.prepared import choose_dtype
    from cli.tokens import EncodeRecords
    from trainkit.data.encoding import BadRecords
    from trainkit.data.preparing import Preparation, Target, write_durably

    section = config.prepare
    final = Path(section.output_dir)
    folder = final.with_name(f"{final.name}.partial")
    written, wanted = folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n"
    if folder.exists() and not (written.exists() and written.read_text(encoding="utf-8") == wanted):
        remark(f"{folder} holds unfinished work of other settings or files; starting anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(written, wanted)
    target = Target(folder, split_names(config), choose_dtype(tokenizer.vocab_size), section.sync_megabytes * 10**6)
    make_encode = functools.partial(EncodeRecords, corpus.decode, tokenizer, section.validation_share)
    return Preparation(target, make_encode, BadRecords(config.data.on_bad_record, remark))


@contextmanager
def progress_bar(corpus: "Corpus") -> Iterator[Callable[["Progress"], None]]:
    """Show MB, MB/s and the time left on standard error, unless it is piped: of files if there are, else of text."""
    from tqdm import tqdm

    total = sum(Path(file).stat().st_size for file in corpus.files) or None
    with tqdm(total=total, unit="B", unit_scale=True, desc="tokenizing", file=sys.stderr, disable=None) as bar:

        def show(progress: "Progress") -> None:
            done = corpus.bytes_done() if corpus.files else progress.text_bytes
            if bar.n == 0:
                bar.initial = bar.n = done  # what an earlier run had done is no part of the speed
            tokens = sum(counts.values for counts in progress.counts)
            bar.set_postfix_str(f"{tokens / 1e6:.1f} M tokens", refresh=False)
            bar.update(done - bar.n)

        yield show


def say_done(splits: dict[str, Any], progress: "Progress", bytes_per_second: float, folder: Path) -> None:
    """Print what was made."""
    print(
        f"{progress.text_bytes / 1e6:.1f} MB of text, {bytes_per_second / 1e6:.1f} MB/s, "
        f"{progress.bad_records} malformed records skipped"
    )
    print(f"{folder}: {sum(counts.documents for counts in splits.values())} documents")
    width = max(map(len, splits))
    for name, counts in splits.items():
        print(f"  {name:<{width}}{counts.documents:>12} documents{counts.values:>14} tokens")


if __name__ == "__main__":
    sys.exit(main())
