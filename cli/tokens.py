"""The tokenizer that a configuration names, and documents as tokens. Loads no torch: worker processes use it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from config.sections.data import TokenizerFilesSection
from trainkit.data.preparing import Chunk
from transformerlm.tokenizer import END_OF_TEXT, Tokenizer


def load_tokenizer(section: TokenizerFilesSection) -> Tokenizer:
    """Read the three files of a tokenizer."""
    return Tokenizer.from_files(section.vocab_path, section.merges_path, section.special_tokens_path)


def encode_text(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the ids of a document's text, in which no special token is recognised: [tokens]."""
    return tokenizer.encode_array(text, allowed_special="none")


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of many documents, the end-of-text token behind each: [total], and their lengths: [documents].

    They are encoded as one text, because a call costs more than a short document. A document that spells the token out
    would fall in two, so then each is encoded by itself.
    """
    end = np.asarray([tokenizer.end_of_text_id], dtype=tokenizer.id_dtype)
    if any(END_OF_TEXT in text for text in texts):
        documents = [np.concatenate([encode_text(tokenizer, text), end]) for text in texts]
        return np.concatenate(documents), np.array([len(document) for document in documents])
    joined = "".join(part for text in texts for part in (text, END_OF_TEXT))
    tokens = tokenizer.encode_array(joined, allowed_special={END_OF_TEXT})
    return tokens, np.diff(np.flatnonzero(tokens == end[0]) + 1, prepend=0)


@dataclass(frozen=True, slots=True)
class EncodeRecords:
    """Turn payloads of records into tokens, the end-of-text token behind each document, sorted by its hash."""

    decode: Callable[[Any], str]
    tokenizer: Tokenizer
    validation_share: float

    def __call__(self, payloads: Sequence[Any]) -> Chunk:
        """Encode what can be encoded and list what cannot."""
        texts: list[list[str]] = [[], []] if self.validation_share > 0 else [[]]
        text_bytes, bad = [0] * len(texts), {}
        for index, payload in enumerate(payloads):
            try:
                text = self.decode(payload)
                data = text.encode()
            except ValueError as error:
                bad[index] = str(error)
                continue
            split = choose_split(data, self.validation_share) if self.validation_share > 0 else 0
            texts[split].append(text)
            text_bytes[split] += len(data)
        encoded = [encode_documents(self.tokenizer, each) for each in texts]
        return Chunk([tokens for tokens, _ in encoded], [lengths for _, lengths in encoded], text_bytes, bad)


def choose_split(data: bytes, validation_share: float) -> int:
    """Return 1 for the share of all texts that is held out, else 0; the same text always goes to the same split."""
    return int(int.from_bytes(blake2b(data, digest_size=8).digest()) < validation_share * 2**64)
