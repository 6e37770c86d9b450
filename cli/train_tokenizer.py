"""transformerlm-train-tokenizer: learn a byte-level BPE vocabulary from text."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from config.roots import TrainTokenizerConfig

COMMAND = Command(
    name="transformerlm-train-tokenizer",
    summary="Learn a byte-level BPE vocabulary: vocab.json, merges.txt and special_tokens.json.",
    config_name="TrainTokenizerConfig",
    override="tokenizer.vocab_size=8192",
    example="""\
examples:
  transformerlm-train-tokenizer --config config/resources/train_tokenizer.toml
      the vocabulary of the embedded corpus
  transformerlm-train-tokenizer --config config/resources/train_tokenizer_text.toml \\
      --set data.data_files="my/texts/*.txt" --set tokenizer.output_dir=data/my_tokenizer
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, train_tokenizer, argv)


def train_tokenizer(config: "TrainTokenizerConfig", options: argparse.Namespace) -> int:
    """Read the corpus, learn the merges, write the files; returns the exit code."""
    from tqdm import tqdm

    from cli.corpora import read_texts
    from transformerlm.tokenizer import train_bpe

    texts = read_texts(config.data, config.data.split, config.data.max_documents)
    section = config.tokenizer
    with tqdm(unit="B", unit_scale=True, desc="reading", file=sys.stderr, disable=None) as bar:

        def on_progress(bytes_read: int, merges_done: int) -> None:
            bar.set_postfix(merges=merges_done)
            bar.update(bytes_read - bar.n)

        tokenizer = train_bpe(texts, section.vocab_size, section.special_tokens, section.pattern, on_progress)
    tokenizer.save(section.output_dir)
    print(f"{tokenizer.vocab_size} tokens written to {section.output_dir}: {describe(tokenizer)}")
    return 0


def describe(tokenizer: object) -> str:
    """Name the longest tokens, which tell at a glance what a vocabulary was learned from."""
    special = set(tokenizer.special_tokens.values())
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size) if token not in special]
    longest = sorted(pieces, key=len, reverse=True)[:8]
    return "longest tokens " + ", ".join(repr(piece.decode("utf-8", "replace")) for piece in longest)


if __name__ == "__main__":
    sys.exit(main())
