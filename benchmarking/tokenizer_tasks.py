"""What transformerlm-bench-tokenizer measures: tasks, the ways of doing them, and our own ways.

    task      from                          to
    encode    a text                        ids as the library's own fastest form
    lists     documents                     a Python list of ids for each
    decode    ids                           the text
    prompt    one short text                its ids
    file      (text file, output file)      16- or 32-bit little-endian ids on disk, end-of-text tokens included
    train     a text file                   the learned tokens, in order

`file` and `train` may use several threads. Every way starts from the form of the input that suits it best, made ready
before the clock starts.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from transformerlm.tokenizer import END_OF_TEXT, Tokenizer
from transformerlm.tokenizer.io import MERGES_FILE, VOCAB_FILE, load_vocabulary

OURS = "transformerlm"
TOKENIZER_JSON = "tokenizer.json"
TASKS = ("encode", "lists", "decode", "prompt", "file", "train")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a library is loaded with."""

    folder: Path
    """Holds the vocabulary, and tokenizer.json for libraries that want that."""
    threads: int
    vocab_size: int
    """Of the vocabulary to train."""
    backend: str
    """Of our own tokenizer."""
    id_dtype: np.dtype
    """Of ids on disk."""

    def read_ids(self, path: Path) -> np.ndarray:
        """Return the ids in a file as an array [tokens]."""
        return np.fromfile(path, dtype=self.id_dtype)


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing a task: only `run` is timed."""

    run: Callable[[Any], Any]
    prepare: Callable[[Any], Any] = lambda given: given
    read: Callable[[Any], Any] = lambda result: result
    """Turns the result into what can be compared: an array of ids, bytes, or a list of tokens."""


class Library(Protocol):
    """A tokenizer to measure."""

    def __init__(self, setup: Setup) -> None: ...

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return task -> name of the way -> the way, for the tasks that the library can do."""
        ...


class Ours:
    """This package."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.tokenizer = Tokenizer.load(setup.folder, backend=setup.backend)

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return our ways."""
        tokenizer = self.tokenizer
        return {
            "encode": {"encode_array": Way(tokenizer.encode_array)},
            "lists": {"encode_batch": Way(tokenizer.encode_batch, read=join_lists)},
            "decode": {"decode_bytes": Way(tokenizer.decode_bytes)},
            "prompt": {
                f"encode ({backend})": Way(Tokenizer.load(self.setup.folder, backend=backend).encode)
                for backend in ("numba", "python")
            },
            "file": {"encode_file": Way(self._encode_file, read=self.setup.read_ids)},
            "train": {"train_on_files": Way(self._train)},
        }

    def _encode_file(self, paths: tuple[Path, Path]) -> Path:
        self.tokenizer.encode_file(paths[0], threads=self.setup.threads, output=paths[1])
        return paths[1]

    def _train(self, path: Path) -> list[bytes]:
        from transformerlm.tokenizer.trainer import BpeSettings, BpeTrainer

        setup = self.setup
        settings = BpeSettings(setup.vocab_size, [END_OF_TEXT], backend=setup.backend, threads=setup.threads)
        return [left + right for left, right in BpeTrainer(settings).train_on_files([path]).vocabulary.merges]


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, line ends as they are."""
    return path.read_bytes().decode()


def split_documents(text: str) -> list[str]:
    """Cut a text after each end-of-text token, which stays."""
    pieces = text.split(END_OF_TEXT)
    return [piece + END_OF_TEXT for piece in pieces[:-1]] + pieces[-1:]


def plain_documents(text: str) -> list[str]:
    """Return the documents of a text without the end-of-text tokens between them."""
    return [piece for piece in text.split(END_OF_TEXT) if piece]


def batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Yield the items in lists of `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def join_lists(lists: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the ids of several documents as one array [tokens] uint32."""
    return np.fromiter((id for ids in lists for id in ids), dtype=np.uint32, count=sum(map(len, lists)))


def join_encodings(encodings: list[Any]) -> np.ndarray:
    """Return the ids of Hugging Face's encodings as one array."""
    return np.concatenate([np.array(each.ids, dtype=np.uint32) for each in encodings])


def write_ids(ids: np.ndarray, path: Path, dtype: np.dtype) -> Path:
    """Write ids as raw numbers."""
    ids.astype(dtype).tofile(path)
    return path


def write_tokenizer_json(folder: Path) -> None:
    """Write a vocabulary as the one file that Hugging Face, gigatoken and fastokens read, beside its own files."""
    vocabulary = load_vocabulary(folder)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges = (folder / MERGES_FILE).read_bytes().decode().split("\n")[1:-1]
    content = {
        "version": "1.0",
        "added_tokens": [{"id": id, "content": text, **flags} for text, id in vocabulary.special_tokens.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": json.loads((folder / VOCAB_FILE).read_bytes()),
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    (folder / TOKENIZER_JSON).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
