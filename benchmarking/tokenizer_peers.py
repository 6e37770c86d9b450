"""The tokenizers that ours is compared with, each behind one small adapter.

An adapter lists the ways in which its library does a task (see tokenizer_tasks.py). Where a library's documentation
leaves a choice, all ways are measured and its best counts.
"""

import importlib.util
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.tokenizer_tasks import (
    OURS,
    TOKENIZER_JSON,
    Library,
    Ours,
    Setup,
    Way,
    batches,
    join_encodings,
    join_lists,
    plain_documents,
    read_text,
    split_documents,
    write_ids,
)
from transformerlm.tokenizer import END_OF_TEXT
from transformerlm.tokenizer.io import load_vocabulary
from transformerlm.tokenizer.vocabulary import from_printable

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SMALLEST_IDS = "ties go to the smallest pair of ids"


class Gigatoken:
    """gigatoken: Rust with SIMD; its own documentation advises whole buffers and files."""

    def __init__(self, setup: Setup) -> None:
        import gigatoken

        self.module, self.setup = gigatoken, setup
        self.tokenizer = gigatoken.Tokenizer(str(setup.folder / TOKENIZER_JSON))

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its ways: the whole text at once, and what may use several threads."""
        one, module = self.tokenizer, self.module
        return {
            "encode": {
                "encode": Way(one.encode, str.encode),
                "encode_batch": Way(lambda raw: one.encode_batch(module.BytesSource(raw)), str.encode, flatten),
            },
            "lists": {"encode_batch_list": Way(one.encode_batch_list, read=join_lists)},
            "decode": {"decode": Way(one.decode)},
            "prompt": {"encode": Way(one.encode)},
            "file": {
                "encode": Way(self._through(lambda path: one.encode(path.read_bytes())), read=self.setup.read_ids),
                "encode_files": Way(
                    self._through(lambda path: flatten(one.encode_files(path))), read=self.setup.read_ids
                ),
            },
            "train": {"train_bpe": Way(self._train, read=lambda result: [left + right for left, right in result[1]])},
        }

    def _through(self, encode: Callable[[Path], np.ndarray]) -> Callable[[tuple[Path, Path]], Path]:
        return lambda paths: write_ids(encode(paths[0]), paths[1], self.setup.id_dtype)

    def _train(self, path: Path) -> Any:
        source = self.module.TextFileSource([path], separator=END_OF_TEXT.encode())
        return self.module.train_bpe(source, self.setup.vocab_size, [END_OF_TEXT])


class Fastokens:
    """fastokens: Rust; one flat buffer of ids for a batch."""

    def __init__(self, setup: Setup) -> None:
        import fastokens

        self.setup = setup
        self.tokenizer = fastokens.Tokenizer.from_file(str(setup.folder / TOKENIZER_JSON))

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its ways; documents keep their end-of-text tokens."""
        one = self.tokenizer
        return {
            "encode": {"encode_batch_flat": Way(one.encode_batch_flat, split_documents, read_flat)},
            "lists": {
                "encode_batch": Way(
                    lambda documents: [each.ids for each in one.encode_batch(documents)], read=join_lists
                )
            },
            "decode": {"decode": Way(one.decode, np.ndarray.tolist, str.encode)},
            "prompt": {"encode": Way(lambda text: one.encode(text).ids)},
            "file": {"encode_batch_flat": Way(self._encode_file, read=self.setup.read_ids)},
        }

    def _encode_file(self, paths: tuple[Path, Path]) -> Path:
        flat = self.tokenizer.encode_batch_flat(split_documents(read_text(paths[0])))
        return write_ids(read_flat(flat), paths[1], self.setup.id_dtype)


class HuggingFace:
    """tokenizers of Hugging Face: Rust; batches of documents."""

    def __init__(self, setup: Setup) -> None:
        import tokenizers

        self.module, self.setup = tokenizers, setup
        self.tokenizer = tokenizers.Tokenizer.from_file(str(setup.folder / TOKENIZER_JSON))

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its ways: encode_batch_fast, which computes no offsets."""
        one = self.tokenizer
        return {
            "encode": {"encode_batch_fast": Way(self._encode, split_documents, join_encodings)},
            "lists": {
                "encode_batch_fast": Way(
                    lambda documents: [each.ids for each in self._encode(documents)], read=join_lists
                )
            },
            "decode": {
                "decode": Way(lambda ids: one.decode(ids, skip_special_tokens=False), np.ndarray.tolist, str.encode)
            },
            "prompt": {"encode": Way(lambda text: one.encode(text, add_special_tokens=False).ids)},
            "file": {"encode_batch_fast": Way(self._encode_file, read=self.setup.read_ids)},
            "train": {"train_from_iterator": Way(self._train, read=self._read_merges)},
        }

    def _encode(self, documents: list[str]) -> list[Any]:
        return self.tokenizer.encode_batch_fast(documents, add_special_tokens=False)

    def _encode_file(self, paths: tuple[Path, Path]) -> Path:
        encodings = self._encode(split_documents(read_text(paths[0])))
        return write_ids(join_encodings(encodings), paths[1], self.setup.id_dtype)

    def _train(self, path: Path) -> Any:
        tokenizers = self.module
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=self.setup.vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learner.train_from_iterator(batches(plain_documents(read_text(path)), 1000), trainer)
        return learner

    def _read_merges(self, learner: Any) -> list[bytes]:
        merges = json.loads(learner.to_str())["model"]["merges"]
        return [from_printable(left) + from_printable(right) for left, right in merges]


class Tiktoken:
    """tiktoken of OpenAI: Rust; one document per thread, or a NumPy array of one text."""

    def __init__(self, setup: Setup) -> None:
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str  # GPT-2's pattern, in the form that is fastest there

        self.setup, vocabulary = setup, load_vocabulary(setup.folder)
        ranks, specials = vocabulary.ordinary_ids(), vocabulary.special_tokens
        self.encoding = tiktoken.Encoding(
            "measured", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=specials
        )

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its ways."""
        one, setup = self.encoding, self.setup
        return {
            "encode": {
                "encode_to_numpy": Way(self._to_numpy),
                "encode_batch": Way(self._encode_batch, split_documents, join_lists),
            },
            "lists": {
                "encode_ordinary_batch": Way(
                    lambda documents: one.encode_ordinary_batch(documents, num_threads=setup.threads), read=join_lists
                )
            },
            "decode": {"decode_bytes": Way(one.decode_bytes, np.ndarray.tolist)},
            "prompt": {"encode_ordinary": Way(one.encode_ordinary)},
            "file": {
                "encode_to_numpy": Way(self._through(self._to_numpy), read=setup.read_ids),
                "encode_batch": Way(
                    self._through(lambda text: join_lists(self._encode_batch(split_documents(text)))),
                    read=setup.read_ids,
                ),
            },
        }

    def _to_numpy(self, text: str) -> np.ndarray:
        return self.encoding.encode_to_numpy(text, allowed_special="all")

    def _encode_batch(self, documents: list[str]) -> list[list[int]]:
        return self.encoding.encode_batch(documents, num_threads=self.setup.threads, allowed_special="all")

    def _through(self, encode: Callable[[str], np.ndarray]) -> Callable[[tuple[Path, Path]], Path]:
        return lambda paths: write_ids(encode(read_text(paths[0])), paths[1], self.setup.id_dtype)


class Ffbpe:
    """ffbpe: Rust; the only trainer here that can break ties as ours does."""

    def __init__(self, setup: Setup) -> None:
        import ffbpe

        self.module, self.setup, vocabulary = ffbpe, setup, load_vocabulary(setup.folder)
        ids = {token: id for id, token in enumerate(vocabulary.tokens)}
        self.encoder = ffbpe.BpeEncoder(
            merges=list(vocabulary.merges), vocab=ids, special_tokens=list(vocabulary.special_tokens)
        )

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its ways."""
        one, setup = self.encoder, self.setup
        return {
            "encode": {"encode_to_numpy": Way(one.encode_to_numpy)},
            "lists": {"encode": Way(lambda documents: list(map(one.encode, documents)), read=join_lists)},
            "decode": {"decode": Way(one.decode, read=str.encode)},
            "prompt": {"encode": Way(one.encode)},
            "file": {
                "encode_to_numpy": Way(
                    lambda paths: write_ids(one.encode_to_numpy(read_text(paths[0])), paths[1], setup.id_dtype),
                    read=setup.read_ids,
                ),
                "encode_file": Way(
                    lambda paths: write_ids(one.encode_file(paths[0]), paths[1], setup.id_dtype), read=setup.read_ids
                ),
            },
            "train": {"BpeTrainer": Way(self._train, read=self._read_tokens)},
        }

    def _train(self, path: Path) -> Any:
        counter = self.module.PreTokenizer([END_OF_TEXT]).word_counter()
        counter.add_source(plain_documents(read_text(path)))
        trainer = self.module.BpeTrainer([END_OF_TEXT], tie_break="largest_content")
        trainer.add_word_counter(counter)
        trainer.train(self.setup.vocab_size)
        return trainer.validate_model()

    def _read_tokens(self, model: Any) -> list[bytes]:
        return sorted(model.vocab, key=model.vocab.__getitem__)[257:]  # after the special token and the bytes


class Rustbpe:
    """rustbpe: Rust; trains only."""

    def __init__(self, setup: Setup) -> None:
        import rustbpe

        self.module, self.setup = rustbpe, setup

    def ways(self) -> dict[str, dict[str, Way]]:
        """Return its way of training."""
        return {
            "train": {
                "train_from_iterator": Way(
                    self._train, read=lambda one: [bytes(token) for token, _ in one.get_mergeable_ranks()[256:]]
                )
            }
        }

    def _train(self, path: Path) -> Any:
        learner = self.module.Tokenizer()
        documents = iter(plain_documents(read_text(path)))
        learner.train_from_iterator(documents, self.setup.vocab_size - 1, pattern=GPT2_PATTERN)  # no special token
        return learner


def flatten(rows: Any) -> np.ndarray:
    """Return the ids of an Awkward array of documents without copying them."""
    import awkward

    return awkward.to_numpy(awkward.flatten(rows, axis=None))


def read_flat(result: tuple[bytes, bytes]) -> np.ndarray:
    """Return the ids of fastokens' flat buffer."""
    return np.frombuffer(result[0], dtype=np.uint32)


LIBRARIES: dict[str, type[Library]] = {
    OURS: Ours,
    "gigatoken": Gigatoken,
    "fastokens": Fastokens,
    "tokenizers": HuggingFace,
    "tiktoken": Tiktoken,
    "ffbpe": Ffbpe,
    "rustbpe": Rustbpe,
}
TIE_RULES = {"gigatoken": SMALLEST_IDS, "tokenizers": SMALLEST_IDS, "rustbpe": SMALLEST_IDS}
"""How a trainer chooses between pairs of equal count, where that differs from ours."""


def installed_libraries() -> dict[str, str]:
    """Return the name and version of every library that is there, ours first."""
    return {name: version(name) for name in LIBRARIES if importlib.util.find_spec(name)}
