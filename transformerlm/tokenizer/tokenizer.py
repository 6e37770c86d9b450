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
from transformerlm.tokenizer.merging import MergeTable
from transformerlm.tokenizer.pretokenize import (
    BLOCK_CHARACTERS,
    Pretokenizer,
    SpecialTokenFinder,
    explain_lone_surrogate,
    stable_blocks,
)
from transformerlm.tokenizer.vocabulary import END_OF_TEXT, MASK, Vocabulary

AllowedSpecial = Literal["all", "none"] | Collection[str]

MAX_CACHED_WORDS = 2**18
MAX_CACHED_WORD_CHARACTERS = 64


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

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._pretokenizer = Pretokenizer(vocabulary.pattern)
        self._all_specials = SpecialTokenFinder(vocabulary.special_tokens)
        self._no_specials = SpecialTokenFinder(())
        self._ids_of_word = _WordCache(MergeTable(vocabulary))
        # A dictionary, because a list would take -1 for its last entry.
        self._bytes_of_id = dict(enumerate(vocabulary.tokens))

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Read the three files of a tokenizer from a folder.

        Raises ValueError naming the file, the line and the remedy.
        """
        return cls(io.load_vocabulary(Path(folder)))

    @classmethod
    def from_files(
        cls, vocab_path: Path | str, merges_path: Path | str, special_tokens_path: Path | str
    ) -> "Tokenizer":
        """Read a tokenizer from three files, wherever they are.

        Raises ValueError naming the file, the line and the remedy.
        """
        return cls(io.read_vocabulary(Path(vocab_path), Path(merges_path), Path(special_tokens_path)))

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
        return self._encode(text, self._find_specials(allowed_special))

    def encode_batch(self, texts: Iterable[str], allowed_special: AllowedSpecial = "all") -> list[list[int]]:
        """Return the token ids of each text."""
        return [self.encode(text, allowed_special) for text in texts]

    def encode_iterable(
        self, chunks: Iterable[str], allowed_special: AllowedSpecial = "all", block_characters: int = BLOCK_CHARACTERS
    ) -> Iterator[int]:
        """Yield the token ids of one text that comes in chunks, the same ids as for the whole text at once.

        Chunks may end anywhere. About `block_characters` are gathered before ids come out; memory does not grow with
        the text (see stable_blocks).
        """
        specials = self._find_specials(allowed_special)
        for block in stable_blocks(chunks, self._pretokenizer, specials, block_characters):
            yield from self._encode(block, specials)

    def encode_file(self, path: Path | str, allowed_special: AllowedSpecial = "all") -> np.ndarray:
        """Return the token ids of a UTF-8 file, line ends as they are, as [tokens] of `id_dtype`.

        Raises ValueError if the file cannot be read or is not UTF-8.
        """
        specials = self._find_specials(allowed_special)
        blocks = stable_blocks(io.read_text_chunks(Path(path)), self._pretokenizer, specials)
        arrays = [np.array(self._encode(block, specials), dtype=self.id_dtype) for block in blocks]
        return np.concatenate(arrays) if arrays else np.empty(0, dtype=self.id_dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises ValueError if an id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids.

        Raises ValueError if an id is outside the vocabulary.
        """
        return b"".join(map(self.token_bytes, ids))

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
            raise ValueError(
                f"token id {id!r} is not in the vocabulary, whose ids are the integers 0 to {self.vocab_size - 1}; "
                "these ids come from another tokenizer, or from a model with a larger vocabulary"
            ) from None

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

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[Vocabulary]]:
        # Worker processes get the vocabulary and build their own tables, not a copy of the cache.
        return Tokenizer, (self.vocabulary,)

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

    def _encode(self, text: str, specials: SpecialTokenFinder) -> list[int]:
        ids: list[int] = []
        try:
            for segment, is_special in specials.segments(text):
                if is_special:
                    ids.append(self.vocabulary.special_tokens[segment])
                else:
                    words = self._pretokenizer.split(segment)
                    ids.extend(chain.from_iterable(map(self._ids_of_word.__getitem__, words)))
        except UnicodeEncodeError:
            raise ValueError(explain_lone_surrogate(text)) from None
        return ids
