"""Unigram and bigram models: what a language model must beat before anything else is said of it."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class NgramBaseline:
    """Counts of a stream of tokens, smoothed without any parameter to tune."""

    vocab_size: int
    unigrams: np.ndarray
    """[vocab_size] int64."""
    bigram_keys: np.ndarray
    """[distinct] int64, left * vocab_size + right, ascending."""
    bigram_counts: np.ndarray
    """[distinct] int64."""

    @classmethod
    def count(cls, tokens: np.ndarray, vocab_size: int) -> Self:
        """Count a stream of tokens: [length] of any integer type; raises ValueError if it is shorter than two."""
        if len(tokens) < 2:
            raise ValueError(f"a bigram needs two tokens, the stream has {len(tokens)}")
        tokens = tokens.astype(np.int64)
        keys, counts = np.unique(tokens[:-1] * vocab_size + tokens[1:], return_counts=True)
        return cls(vocab_size, np.bincount(tokens, minlength=vocab_size), keys, counts)

    def unigram_nats(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens by their frequency plus one (Laplace): any shape of ids -> nats of the same shape."""
        probability = (self.unigrams + 1) / (self.unigrams.sum() + self.vocab_size)
        return -np.log(probability)[tokens]

    def bigram_nats(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Score `right` behind `left`, two arrays of ids of one shape -> nats of that shape.

        Witten-Bell smoothing (1991): behind a token followed n times by d distinct ones, the unigram model is
        trusted with the share d / (n + d).
        """
        lefts = self.bigram_keys // self.vocab_size
        followed = np.bincount(lefts, weights=self.bigram_counts, minlength=self.vocab_size)
        distinct = np.bincount(lefts, minlength=self.vocab_size)
        keys = left.astype(np.int64) * self.vocab_size + right
        slots = np.searchsorted(self.bigram_keys, keys).clip(max=len(self.bigram_keys) - 1)
        pairs = np.where(self.bigram_keys[slots] == keys, self.bigram_counts[slots], 0)
        unigram = np.exp(-self.unigram_nats(right))
        total = followed[left] + distinct[left]
        smoothed = (pairs + distinct[left] * unigram) / np.maximum(total, 1)
        return -np.log(np.where(total > 0, smoothed, unigram))
