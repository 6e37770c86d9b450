"""The compiled trainer, seen from Python: WordCounter reads the corpus, MergeLearner learns from its counts."""

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from transformerlm.tokenizer.blocks import Block, block_of
from transformerlm.tokenizer.kernels import counting, learning, pairs
from transformerlm.tokenizer.kernels.counting import HEADER
from transformerlm.tokenizer.kernels.memory import aligned_zeros, make_bundle
from transformerlm.tokenizer.kernels.pretokens import STARTS_CAPACITY
from transformerlm.tokenizer.kernels.words import KEYS_CAPACITY, rehash
from transformerlm.tokenizer.pretokenize import SpecialTokenFinder
from transformerlm.tokenizer.segments import cut_documents
from transformerlm.tokenizer.unicode_classes import class_bits
from transformerlm.tokenizer.vocabulary import Merge
from transformerlm.utils.jit import is_compiled, prepare

KERNELS = "tokenizer training"
FIRST_SLOTS = 2**15
"""Of a counter's tables, which grow."""
FIRST_PAIRS = 2**18
"""Room for pairs at first: at least 65,536 pairs of bytes, and what one merge may add."""
MERGES_PER_CALL = 256
"""Between two calls of the merge loop progress is shown and an interruption heard."""


def training_is_compiled() -> bool:
    """Tell whether the kernels were compiled on this machine before."""
    return is_compiled(KERNELS)


@cache
def prepare_training() -> None:
    """Load the kernels, or compile them; call it before the classes below."""

    def warm_up() -> None:
        counter, other = WordCounter(), WordCounter()
        text = b"abab a long word: internationalization"
        counter.count(block_of(text), cut_documents(block_of(text), [len(text)], SpecialTokenFinder(["<|a|>"])))
        other.absorb(counter)
        counter._make_room(FIRST_SLOTS, FIRST_SLOTS, 2 * FIRST_SLOTS)
        learner = MergeLearner(other.lay_out(), 4)
        list(learner.learn())
        learner._grow()

    prepare(KERNELS, warm_up)


class WordCounter:
    """Count pretokens of the pattern of GPT-2; one for each thread, merged at the end."""

    def __init__(self) -> None:
        self.slots = aligned_zeros(4 * FIRST_SLOTS, np.uint64)
        self.long_slots = aligned_zeros(4 * FIRST_SLOTS, np.uint64)
        self.long_bytes = np.empty(FIRST_SLOTS, np.uint8)
        self.used = np.zeros(counting.USED_FIELDS, np.int64)
        self._scratch = [class_bits(), np.empty(STARTS_CAPACITY, np.uint32), np.empty(KEYS_CAPACITY, np.uint64)]

    @property
    def words(self) -> int:
        """Count the pretokens seen."""
        return int(self.used[counting.WORDS])

    @property
    def word_bytes(self) -> int:
        """Count the bytes in them."""
        return int(self.used[counting.WORD_BYTES])

    @property
    def distinct_words(self) -> int:
        """Count the different ones among them."""
        return int(self.used[counting.SHORT_USED] + self.used[counting.LONG_USED])

    def count(self, block: Block, segments: np.ndarray) -> None:
        """Count the pretokens of stretches of a block: int64 [segments, 3], begin and end first.

        Raises ValueError if the block is not UTF-8.
        """
        status, row, position = np.full(1, -1, np.int64), 0, 0
        while True:
            bundle = make_bundle([*self._scratch, *self._table()])
            arguments = (block.buffer, segments, row, position, status, bundle)
            row, position = counting.count_segments(*arguments)
            if status[0] >= 0:
                block.decode()  # says what is wrong, and raises
                raise AssertionError("the kernels and Python disagree about UTF-8")
            if row == len(segments):
                return
            # At most one word, the longest there can be, is why the same place might come up again.
            self._make_room(STARTS_CAPACITY, STARTS_CAPACITY, int(segments[row, 1]) - position)

    def absorb(self, other: "WordCounter") -> None:
        """Add the counts of another counter."""
        used = other.used
        short, long_words, num_bytes = counting.SHORT_USED, counting.LONG_USED, counting.LONG_BYTES_USED
        self._make_room(int(used[short]), int(used[long_words]), int(used[num_bytes]))
        counting.absorb(make_bundle(self._table()), make_bundle(other._table()))

    def lay_out(self) -> np.ndarray:
        """Return the distinct words with their counts, as the merge loop wants them: int32 [size]."""
        num_bytes, words = counting.measure_words(self.slots, self.long_slots)
        records = np.empty(num_bytes + HEADER * words, np.int32)
        counting.lay_out_words(self.slots, self.long_slots, self.long_bytes, records)
        return records

    def _table(self) -> tuple[np.ndarray, ...]:
        return self.slots, self.long_slots, self.long_bytes, self.used

    def _make_room(self, short_words: int, long_words: int, num_bytes: int) -> None:
        """Grow until so many words more leave the tables at most half full."""
        self.slots = _with_room(self.slots, int(self.used[counting.SHORT_USED]) + short_words, is_short=True)
        self.long_slots = _with_room(self.long_slots, int(self.used[counting.LONG_USED]) + long_words, is_short=False)
        wanted = int(self.used[counting.LONG_BYTES_USED]) + num_bytes
        if wanted > len(self.long_bytes):
            self.long_bytes = _enlarged(self.long_bytes, max(wanted, 2 * len(self.long_bytes)))


def lay_out_counts(word_counts: Mapping[str, int]) -> np.ndarray:
    """Return the words of a dictionary as WordCounter.lay_out does."""
    parts = []
    for word, count in word_counts.items():
        symbols = word.encode()
        if len(symbols) > 1:
            parts.append(np.array([count & 0x7FFFFFFF, count >> 31, len(symbols), *symbols], np.int32))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


class MergeLearner:
    """Learn merges from words that were laid out; changes them.

    Every array that the kernels append to is allocated for the worst case at once, or grows between two calls. An
    allocation that is not written to costs no memory, only addresses.
    """

    def __init__(self, records: np.ndarray, max_merges: int):
        assert len(records) < 2**31, "places of words are 32-bit integers"
        symbols, tokens = len(records), 256 + max_merges
        self._merges = np.empty((max_merges, 2), np.int32)
        self._numbers = np.zeros(pairs.NUM_NUMBERS, np.int64)
        self._arrays: dict[str, np.ndarray] = {
            "records": records,
            "prefixes": np.empty(tokens, np.uint64),
            "offsets": np.empty(tokens, np.int64),
            "lengths": np.empty(tokens, np.int32),
            "token_bytes": np.empty(2**20, np.uint8),
            # Each word notes each pair once at first, and two more for every symbol that it loses.
            "lefts": np.empty(FIRST_PAIRS, np.int32),
            "rights": np.empty(FIRST_PAIRS, np.int32),
            "counts": np.empty(FIRST_PAIRS, np.int64),
            "firsts": np.empty(FIRST_PAIRS, np.int64),
            "pair_lengths": np.empty(FIRST_PAIRS, np.int32),
            "is_queued": np.empty(FIRST_PAIRS, np.uint8),
            "pool": np.empty(3 * symbols, np.int32),
            "slots": np.zeros(2 * FIRST_PAIRS, np.uint64),
            "slot_pairs": np.empty(2 * FIRST_PAIRS, np.int32),
            "heap_counts": np.empty(FIRST_PAIRS, np.int64),
            "heap_pairs": np.empty(FIRST_PAIRS, np.int32),
            # Two sides of a merge, each with any token for a neighbour.
            "lost": np.zeros(2 * tokens, np.int64),
            "gained": np.zeros(2 * tokens, np.int64),
            "words": np.zeros(2 * tokens, np.int32),
            "last_word": np.full(2 * tokens, -1, np.int64),
            "new_pair": np.empty(2 * tokens, np.int32),
            "touched": np.empty(2 * tokens, np.int32),
            "events": np.empty(2 * symbols, np.int64),
            "numbers": self._numbers,
        }
        self._enter_bytes()

    def learn(self) -> Iterator[int]:
        """Learn merges, and yield their number now and then; ends at `max_merges`, or sooner if no pair is left."""
        while self._numbers[pairs.NUM_MERGES] < len(self._merges):
            goal = min(len(self._merges), int(self._numbers[pairs.NUM_MERGES]) + MERGES_PER_CALL)
            outcome = learning.learn_merges(self._bundle(), goal, self._merges)
            yield int(self._numbers[pairs.NUM_MERGES])
            if outcome == learning.NO_PAIR_LEFT:
                return
            if outcome == learning.WANTS_ROOM:
                self._grow()

    def merges(self) -> list[Merge]:
        """Return the merges learned so far, as bytes."""
        tokens = [bytes([byte]) for byte in range(256)]
        merges = []
        for left, right in self._merges[: self._numbers[pairs.NUM_MERGES]].tolist():
            merges.append((tokens[left], tokens[right]))
            tokens.append(tokens[left] + tokens[right])
        return merges

    @property
    def tokens_saved(self) -> int:
        """Count by how many tokens the merges learned so far have shortened the corpus."""
        return int(self._numbers[pairs.SAVED])

    def _enter_bytes(self) -> None:
        arrays = self._arrays
        arrays["prefixes"][:256] = np.arange(256, dtype=np.uint64) << np.uint64(56)
        arrays["offsets"][:256] = arrays["token_bytes"][:256] = np.arange(256)
        arrays["lengths"][:256] = 1
        self._numbers[[pairs.NUM_TOKENS, pairs.TOKEN_BYTES_USED]] = 256
        self._numbers[pairs.LONGEST_TOKEN] = 1
        learning.count_byte_pairs(self._bundle())

    def _grow(self) -> None:
        arrays = self._arrays
        for name in ("lefts", "rights", "counts", "firsts", "pair_lengths", "is_queued", "heap_counts", "heap_pairs"):
            arrays[name] = _enlarged(arrays[name], 2 * len(arrays[name]))
        longest = int(self._numbers[pairs.LONGEST_TOKEN])
        arrays["token_bytes"] = _enlarged(arrays["token_bytes"], 2 * len(arrays["token_bytes"]) + 2 * longest)
        slots = np.zeros(2 * len(arrays["slots"]), np.uint64)
        slot_pairs = np.empty(len(slots), np.int32)
        learning.rehash_pairs(self._bundle(), slots, slot_pairs)
        arrays["slots"], arrays["slot_pairs"] = slots, slot_pairs

    def _bundle(self) -> np.ndarray:
        return make_bundle(list(self._arrays.values()))


def _with_room(slots: np.ndarray, words: int, *, is_short: bool) -> np.ndarray:
    """Return a table in which so many words fill at most half of the slots."""
    size = len(slots)
    while 2 * words > size // 4:
        size *= 2
    if size == len(slots):
        return slots
    larger = aligned_zeros(size, np.uint64)
    rehash(slots, larger, is_short)
    return larger


def _enlarged(array: np.ndarray, size: int) -> np.ndarray:
    larger = np.empty(size, array.dtype)
    larger[: len(array)] = array
    return larger
