"""Where the tokenizer's time goes: the first pass over a text, and lists of ids document by document.

    uv run python -m benchmarking.tokenizer_stages --text data/corpora/english.txt

One thread; each figure is the median of some passes. Stages are timed one by one over the whole text, so each finds
less of its data in the caches than it does where they take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.tokenizer_report import describe_machine
from benchmarking.tokenizer_tasks import plain_documents
from transformerlm.tokenizer import END_OF_TEXT, Tokenizer
from transformerlm.tokenizer.blocks import Block, block_of, file_blocks
from transformerlm.tokenizer.fast_encoding import FastEncoder
from transformerlm.tokenizer.kernels.pretokens import STARTS_CAPACITY, find_starts
from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder, encode_utf8
from transformerlm.tokenizer.trainer import train_bpe_on_files
from transformerlm.tokenizer.unicode_classes import class_bits

PASSES = 5
Stages = dict[str, list[float]]


@contextmanager
def stage(stages: Stages, name: str) -> Iterator[None]:
    """Add one time, in milliseconds, to a stage."""
    began = time.perf_counter()
    yield
    stages.setdefault(name, []).append((time.perf_counter() - began) * 1000)


def encode_all(encoder: FastEncoder, blocks: list[Block], specials: SpecialTokenFinder, ids: dict[str, int]) -> int:
    """Encode blocks; returns the number of ids."""
    return sum(len(encoder.encode_block(block, specials, ids)) for block in blocks)


def find_all(blocks: list[Block], starts: np.ndarray) -> int:
    """Find the pretokens of blocks; returns how many there are."""
    status, total = np.full(1, -1, np.int64), 0
    for block in blocks:
        place = 0
        while place < block.size:
            words, place = find_starts(block.buffer, place, block.size, class_bits(), starts, status)
            total += words
    return total


def different_words(text: str) -> bytes:
    """Return the different pretokens of a text, in the order in which they come, each ended by a special token."""
    split = Pretokenizer("gpt2").split
    words = dict.fromkeys(word for document in plain_documents(text) for word in split(document))
    return END_OF_TEXT.join(words).encode()


def time_first_pass(tokenizer: Tokenizer, path: Path) -> tuple[Stages, dict[str, int]]:
    """Time what a first pass does that a repeated one does not; returns milliseconds, and what there was to do."""
    special_ids = tokenizer.special_tokens
    specials = SpecialTokenFinder(special_ids)
    blocks = list(file_blocks(path, Pretokenizer("gpt2"), specials))
    words = block_of(different_words(path.read_text("utf-8")))
    starts, stages = np.empty(STARTS_CAPACITY, np.uint32), {}
    for _ in range(PASSES):
        encoder = FastEncoder(tokenizer.vocabulary, tokenizer.id_dtype)
        with stage(stages, "first pass"):
            tokens = encode_all(encoder, blocks, specials, special_ids)
        with stage(stages, "repeated pass"):
            encode_all(encoder, blocks, specials, special_ids)
        with stage(stages, "of it, finding pretokens"):
            pretokens = find_all(blocks, starts)
        grown = FastEncoder(tokenizer.vocabulary, tokenizer.id_dtype)
        grown.encode(b"a")
        [workspace] = grown._idle
        with stage(stages, "making the empty cache larger until all words fit"):
            while workspace._words < encoder._idle[0]._words:
                workspace.make_room()
        with stage(stages, "the different words, once each, all new"):
            new_words = encode_all(grown, [words], specials, special_ids)
        with stage(stages, "the same, all known"):
            encode_all(grown, [words], specials, special_ids)
    different = words.decode().count(END_OF_TEXT) + 1
    return stages, {
        "pretokens": pretokens,
        "different": different,
        "tokens": tokens,
        "tokens of different": new_words - different + 1,
    }


def time_lists(tokenizer: Tokenizer, documents: list[str]) -> Stages:
    """Time how documents become lists, stage by stage, as `Tokenizer.encode` does it; milliseconds."""
    specials = SpecialTokenFinder(tokenizer.special_tokens)
    objects = tokenizer._id_objects
    stages: Stages = {}

    def run(name: str, function: Callable[[Any], Any], items: list) -> list:
        with stage(stages, name):
            return [function(item) for item in items]

    for _ in range(PASSES):
        with stage(stages, "all: encode()"):
            lists = [tokenizer.encode(document) for document in documents]
        with stage(stages, "letting go of the lists"):
            del lists
        encoded = run("str to UTF-8", encode_utf8, documents)
        arrays = run("UTF-8 to arrays of ids", lambda raw: tokenizer._encode_bytes(raw, specials), encoded)
        pointers = run("ids to pointers of numbers", objects.take, arrays)
        lists = run("pointers to lists", np.ndarray.tolist, pointers)
        del lists, pointers
        lists = run("instead of the last two: ids to lists, each number made anew", np.ndarray.tolist, arrays)
        del lists, arrays, encoded
    return stages


def show(title: str, stages: Stages) -> None:
    """Print the medians of stages."""
    print(f"\n{title}")
    for name, times in stages.items():
        print(f"  {statistics.median(times):9.1f} ms  {name}  ({min(times):.1f} to {max(times):.1f})")


def main() -> None:
    """Print both tables for one text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text of some megabytes")
    parser.add_argument("--vocab-size", type=int, default=32_768, help="learned from the text first")
    arguments = parser.parse_args()
    learned = train_bpe_on_files([arguments.text], arguments.vocab_size, [END_OF_TEXT])
    tokenizer = Tokenizer(learned.vocabulary, backend="numba")
    text = arguments.text.read_text("utf-8")
    documents = plain_documents(text)
    print(f"{describe_machine()}\n{arguments.text}: {len(text.encode()) / 1e6:.1f} MB, {len(documents)} documents")
    stages, facts = time_first_pass(tokenizer, arguments.text)
    show("first pass: " + ", ".join(f"{count} {name}" for name, count in facts.items()), stages)
    show("lists, all words known", time_lists(tokenizer, documents))


if __name__ == "__main__":
    main()
