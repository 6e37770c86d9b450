"""The tokenizer people use: text to token ids and back.

`Tokenizer.load(folder)` reads one, `train_bpe(...)` makes one. `decode(encode(text)) == text` for every text that has
a UTF-8 form; text with lone surrogates has none and is refused.
"""

import codecs
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from transformerlm.tokenizer import io
from transformerlm.tokenizer.backend import Backend, EncoderChoice
from transformerlm.tokenizer.blocks import BLOCK_BYTES, Block, block_of, cut_blocks, file_blocks, reader_of
from transformerlm.tokenizer.merging import MergeTable
from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder, encode_utf8
from transformerlm.tokenizer.streaming import concatenate, map_in_order, write_array
from transformerlm.tokenizer.vocabulary import END_OF_TEXT, MASK, Vocabulary

AllowedSpecial = Literal["all", "none"] | Collection[str]

MAX_CACHED_WORDS = 2**18
MAX_CACHED_WORD_CHARACTERS = 64
LAZY_BLOCK_BYTES = 2**16


class _WordCache(dict[str, list[int]]):
    """Remember the ids of words: text repeats itself, and merging is the slow part.

    Looking up an unknown word merges it. When full, the cache starts over: the frequent words are soon back.
    """

    def __init__(self, merge_table: MergeTable):
        self._merge_table = merge_table

    def __missing__(self, word: str) -> list[int]:
        ids = self._merge_table.apply(word.encode())
        if len(word) <= MAX_CACHED_WORD_CHARACTERS:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


class Tokenizer:
    """Encode text as token ids and decode ids as text.

    In every method that encodes, `allowed_special` says which special tokens are recognised in the text: "all",
    "none", or some of them by name. Those not allowed are encoded as the plain text they are.
    """

    def __init__(self, vocabulary: Vocabulary, backend: Backend = "auto"):
        """`backend`: "python", "numba", or "auto" for whichever suits the size of the work; the ids are the same.

        Raises ValueError if "numba" is asked for and cannot serve.
        """
        self.vocabulary, self.backend = vocabulary, backend
        self._encoders = EncoderChoice(vocabulary, self.id_dtype, backend)
        self._pretokenizer = Pretokenizer(vocabulary.pattern)
        self._all_specials = SpecialTokenFinder(vocabulary.special_tokens)
        self._no_specials = SpecialTokenFinder(())
        self._ids_of_word = _WordCache(MergeTable(vocabulary))
        # A dictionary, because a list would take -1 for its last entry.
        self._bytes_of_id = dict(enumerate(vocabulary.tokens))

    @classmethod
    def load(cls, folder: Path | str, backend: Backend = "auto") -> "Tokenizer":
        """Read the three files of a tokenizer from a folder.

        Raises ValueError naming the file, the line and the remedy.
        """
        return cls(io.load_vocabulary(Path(folder)), backend)

    @classmethod
    def from_files(
        cls,
        vocab_path: Path | str,
        merges_path: Path | str,
        special_tokens_path: Path | str,
        backend: Backend = "auto",
    ) -> "Tokenizer":
        """Read a tokenizer from three files, wherever they are.

        Raises ValueError naming the file, the line and the remedy.
        """
        return cls(io.read_vocabulary(Path(vocab_path), Path(merges_path), Path(special_tokens_path)), backend)

    def save(self, folder: Path | str) -> None:
        """Write vocab.json, merges.txt and special_tokens.json into a folder, made if needed."""
        io.save_vocabulary(self.vocabulary, Path(folder))

    @property
    def vocab_size(self) -> int:
        """Count the tokens; ids run from 0 to vocab_size - 1."""
        return len(self.vocabulary)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Map the special tokens to their ids."""
        return dict(self.vocabulary.special_tokens)

    @property
    def end_of_text_id(self) -> int:
        """Return the id of "<|endoftext|>".

        Raises ValueError if the vocabulary has none.
        """
        try:
            return self.vocabulary.special_tokens[END_OF_TEXT]
        except KeyError:
            raise ValueError(
                f"the tokenizer has no special token {END_OF_TEXT!r}; train it with one among its special tokens"
            ) from None

    @property
    def mask_id(self) -> int | None:
        """Return the id of "<|mask|>", or None if the vocabulary has none."""
        return self.vocabulary.special_tokens.get(MASK)

    @property
    def id_dtype(self) -> np.dtype:
        """Return the smallest type that holds every id: uint16 up to 65,536 tokens, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def encode(self, text: str, allowed_special: AllowedSpecial = "all") -> list[int]:
        """Return the token ids of a text.

        Raises ValueError if the text holds a lone surrogate or an allowed special token is unknown.
        """
        specials = self._find_specials(allowed_special)
        if self._encoders.choose(len(text)) is None:
            return self._encode_in_python(text, specials)
        return self._encode_bytes(encode_utf8(text), specials).tolist()

    def encode_array(self, text: str, allowed_special: AllowedSpecial = "all") -> np.ndarray:
        """Return the token ids of a text as [tokens] of `id_dtype`; otherwise like `encode`."""
        specials = self._find_specials(allowed_special)
        if self._encoders.choose(len(text)) is None:
            return np.array(self._encode_in_python(text, specials), self.id_dtype)
        return self._encode_bytes(encode_utf8(text), specials)

    def encode_batch(self, texts: Iterable[str], allowed_special: AllowedSpecial = "all") -> list[list[int]]:
        """Return the token ids of each text."""
        return [self.encode(text, allowed_special) for text in texts]

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: AllowedSpecial = "all", block_bytes: int = LAZY_BLOCK_BYTES
    ) -> Iterator[int]:
        """Yield the token ids of one text that comes in chunks, the same ids as for the whole text at once.

        Chunks may end anywhere. About `block_bytes` are gathered before ids come out; memory does not grow with the
        text (see cut_blocks).
        """
        specials = self._find_specials(allowed_special)
        read_into = reader_of(map(encode_utf8, chunks))
        for block in cut_blocks(read_into, self._pretokenizer, specials, block_bytes):
            yield from self._encode_block(block, specials).tolist()

    def encode_file(
        self,
        path: Path | str,
        allowed_special: AllowedSpecial = "all",
        *,
        threads: int = 1,
        output: Path | str | None = None,
    ) -> np.ndarray:
        """Return the token ids of a UTF-8 file, line ends as they are, as [tokens] of `id_dtype`.

        threads: how many work at a time; the compiled backend does not hold them up.  output: a file to write the ids
        into, little-endian and nothing else; then they are returned memory-mapped, and memory does not grow with the
        text.
        Raises ValueError if the file cannot be read or is not UTF-8.
        """
        specials, path = self._find_specials(allowed_special), Path(path)
        self._encoders.choose(path.stat().st_size if path.is_file() else 0)  # one choice for all blocks

        def encode(block: Block) -> np.ndarray:
            try:
                return self._encode_block(block, specials)
            except ValueError as error:
                raise ValueError(f"{path}: {error}; convert the file to UTF-8") from None

        arrays = map_in_order(encode, file_blocks(path, self._pretokenizer, specials), threads)
        if output is None:
            return concatenate(arrays, self.id_dtype)
        return write_array(arrays, self.id_dtype, Path(output))

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises ValueError if an id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """Return the bytes of token ids; arrays of integers are decoded by the compiled backend.

        Raises ValueError if an id is outside the vocabulary.
        """
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu":
            encoder = self._encoders.choose(ids.size)
            if encoder is not None and ids.size and ids.min() >= 0 and ids.max() < self.vocab_size:
                return encoder.decode(ids.reshape(-1))
        try:
            return b"".join([self._bytes_of_id[id] for id in (ids.tolist() if isinstance(ids, np.ndarray) else ids)])
        except KeyError as error:
            raise self._unknown_id(error.args[0]) from None

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield text as ids arrive, holding back the bytes of a character until it is whole.

        The pieces joined are `decode(ids)`; none is empty.
        Raises ValueError if an id is outside the vocabulary.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for id in ids:
            text = decoder.decode(self.token_bytes(id))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token; those of a special token are its text.

        Raises ValueError if the id is outside the vocabulary.
        """
        try:
            return self._bytes_of_id[id]
        except KeyError:
            raise self._unknown_id(id) from None

    def fingerprint(self) -> str:
        """Return the SHA-256, in hexadecimal, of everything that decides the ids: equal only for equal tokenizers."""
        return io.fingerprint(self.vocabulary)

    def __eq__(self, other: object) -> bool:
        return self.vocabulary == other.vocabulary if isinstance(other, Tokenizer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.vocabulary.tokens)

    def __repr__(self) -> str:
        specials = ", ".join(map(repr, self.vocabulary.special_tokens)) or "none"
        return (
            f"Tokenizer(vocab_size={self.vocab_size}, pattern={self.vocabulary.pattern!r}, special tokens: {specials})"
        )

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[Vocabulary, Backend]]:
        # Worker processes get the vocabulary and build their own tables, not a copy of the cache.
        return Tokenizer, (self.vocabulary, self.backend)

    def _unknown_id(self, id: object) -> ValueError:
        return ValueError(
            f"token id {id!r} is not in the vocabulary, whose ids are the integers 0 to {self.vocab_size - 1}; "
            "these ids come from another tokenizer, or from a model with a larger vocabulary"
        )

    def _find_specials(self, allowed_special: AllowedSpecial) -> SpecialTokenFinder:
        if isinstance(allowed_special, str):
            if allowed_special not in ("all", "none"):
                raise ValueError(
                    f"allowed_special is 'all', 'none' or a set of special tokens, not {allowed_special!r}"
                )
            return self._all_specials if allowed_special == "all" else self._no_specials
        unknown = sorted(set(allowed_special) - self.vocabulary.special_tokens.keys())
        if unknown:
            known = ", ".join(map(repr, self.vocabulary.special_tokens)) or "none"
            raise ValueError(f"{unknown[0]!r} is not a special token of this tokenizer; it has {known}")
        return SpecialTokenFinder(set(allowed_special))

    def _encode_bytes(self, text: bytes, specials: SpecialTokenFinder) -> np.ndarray:
        """Return the ids of UTF-8 text."""
        encoder = self._encoders.choose(0)
        if encoder is not None and len(text) <= encoder.small_bytes and not specials.occur_in_bytes(text):
            return encoder.encode(text)
        if len(text) <= BLOCK_BYTES:
            return self._encode_block(block_of(text), specials)
        blocks = cut_blocks(reader_of([text]), self._pretokenizer, specials)
        return concatenate((self._encode_block(block, specials) for block in blocks), self.id_dtype)

    def _encode_block(self, block: Block, specials: SpecialTokenFinder) -> np.ndarray:
        """Return the ids of a block."""
        encoder = self._encoders.choose(block.size)
        if encoder is None:
            return np.array(self._encode_in_python(block.decode(), specials), self.id_dtype)
        return encoder.encode_block(block, specials, self.vocabulary.special_tokens)

    def _encode_in_python(self, text: str, specials: SpecialTokenFinder) -> list[int]:
        ids: list[int] = []
        try:
            for segment, is_special in specials.segments(text):
                if is_special:
                    ids.append(self.vocabulary.special_tokens[segment])
                else:
                    words = self._pretokenizer.split(segment)
                    ids.extend(chain.from_iterable(map(self._ids_of_word.__getitem__, words)))
        except UnicodeEncodeError:
            encode_utf8(text)  # says what is wrong, and raises
            raise
        return ids
