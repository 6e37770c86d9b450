"""transformerlm-train-tokenizer: learn a byte-level BPE vocabulary from text."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from config.roots import TrainTokenizerConfig
    from config.sections.tokenizer import TokenizerSection
    from transformerlm.tokenizer import Tokenizer
    from transformerlm.tokenizer.trainer import BpeSettings, BpeTrainer

COMMAND = Command(
    name="transformerlm-train-tokenizer",
    summary="Learn a byte-level BPE vocabulary: vocab.json, merges.txt, special_tokens.json and manifest.json.",
    config_name="TrainTokenizerConfig",
    override="tokenizer.vocab_size=8192",
    example="""\
examples:
  transformerlm-train-tokenizer --config config/resources/train_tokenizer.toml
      the vocabulary of the embedded corpus
  transformerlm-train-tokenizer --config config/resources/train_tokenizer_text.toml \\
      --set data.data_files="my/texts/*.txt" --set tokenizer.output_dir=data/my_tokenizer
  zcat *.txt.gz | transformerlm-train-tokenizer --config config/resources/train_tokenizer_text.toml \\
      --set data.data_files=- --set tokenizer.output_dir=data/my_tokenizer
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, train_tokenizer, argv)


def train_tokenizer(config: "TrainTokenizerConfig", options: argparse.Namespace) -> int:
    """Read the corpus, learn the merges, write the files, say what came out; returns the exit code."""
    try:
        tokenizer, trainer = learn_vocabulary(config)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        raise
    from cli.output_folder import write_folder
    from cli.tokenizer_summary import describe_training, render_files

    write_folder(Path(config.tokenizer.output_dir), render_files(tokenizer, trainer, config.data))
    print(f"{tokenizer.vocab_size} tokens written to {config.tokenizer.output_dir}")
    print("\n".join(describe_training(tokenizer, trainer, config.data)))
    return 0


def learn_vocabulary(config: "TrainTokenizerConfig") -> tuple["Tokenizer", "BpeTrainer"]:
    """Learn, with progress bars on standard error; returns the tokenizer, and the trainer for its report."""
    from cli.output_folder import check_output_folder
    from cli.tokenizer_corpus import corpus_bytes, learn
    from cli.tokenizer_summary import FILES, TrainingBars
    from transformerlm.tokenizer.trainer import BpeTrainer

    check_output_folder(Path(config.tokenizer.output_dir), FILES)
    settings = make_settings(config.tokenizer)
    num_merges = settings.vocab_size - 256 - len(settings.special_tokens)
    with TrainingBars(corpus_bytes(config.data), num_merges) as bars:
        trainer = BpeTrainer(settings, bars.update)
        return learn(trainer, config.data), trainer


def make_settings(section: "TokenizerSection") -> "BpeSettings":
    """Return what a trainer wants to know; "auto" threads are as many as there are cores."""
    from transformerlm.tokenizer.trainer import BpeSettings

    threads = section.threads
    if threads == "auto":
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return BpeSettings(
        section.vocab_size, section.special_tokens, section.pattern, section.backend, threads, hash_corpus=True
    )


if __name__ == "__main__":
    sys.exit(main())
