"""The compiled backend, seen from Python: numpy buffers in, numpy arrays of ids out.

One FastEncoder serves all threads. What depends on the vocabulary is shared and never written to. What changes, the
word cache and the working memory, is lent to one call at a time: there are as many as calls were ever under way
together, and a thread that comes later finds a cache that knows its words.
"""

from collections.abc import Mapping

import numpy as np

from transformerlm.tokenizer.blocks import PADDING, Block, block_of
from transformerlm.tokenizer.kernels.decoding import SLACK_BYTES, decode_ids
from transformerlm.tokenizer.kernels.encoding import (
    LONGEST_CACHED_WORD,
    OUTPUT_SLACK_BYTES,
    USED_FIELDS,
    Scratch,
    WordCache,
    encode_segments,
    encode_text,
)
from transformerlm.tokenizer.kernels.memory import aligned_zeros, make_bundle
from transformerlm.tokenizer.kernels.merging import (
    ID_BITS,
    MASKED_CAPACITY,
    NO_RANK,
    MergeTables,
    fill_pair_slots,
)
from transformerlm.tokenizer.kernels.pretokens import BATCH, STARTS_CAPACITY
from transformerlm.tokenizer.kernels.words import KEYS_CAPACITY, rehash
from transformerlm.tokenizer.pretokenize import SpecialTokenFinder
from transformerlm.tokenizer.segments import cut_at_specials
from transformerlm.tokenizer.unicode_classes import class_bits
from transformerlm.tokenizer.vocabulary import Vocabulary
from transformerlm.utils.jit import is_compiled, prepare

FIRST_CACHED_WORDS = 2**16
MOST_CACHED_WORDS = 2**20
"""Words that a cache holds at first and at the most; short ones take 64 bytes each, long ones some more."""

SMALL_BYTES = 2**9
"""The longest text for `FastEncoder.encode`: fewer than BATCH words, if not every byte is one."""

_SLACK_IDS = OUTPUT_SLACK_BYTES // 2
_BATCH_BYTES = (BATCH + 64) * LONGEST_CACHED_WORD


def can_encode(vocabulary: Vocabulary) -> bool:
    """Tell whether the kernels can serve a vocabulary: they know the pattern of GPT-2, and ids of 21 bits."""
    return vocabulary.pattern == "gpt2" and len(vocabulary) <= 2**ID_BITS and len(vocabulary.merges) < NO_RANK


def encoding_is_compiled(id_dtype: np.dtype) -> bool:
    """Tell whether the kernels were compiled on this machine before, for one type of ids."""
    return is_compiled(_name_of(id_dtype))


def _name_of(id_dtype: np.dtype) -> str:
    return f"{id_dtype.name} token ids"


def build_merge_tables(vocabulary: Vocabulary) -> MergeTables:
    """Lay out the merges of a vocabulary for the kernels."""
    ids, merges = vocabulary.ordinary_ids(), vocabulary.merges
    byte_ranks = np.full(2**16, NO_RANK, np.uint32)
    for rank, (left, right) in enumerate(merges):
        if len(left) == len(right) == 1:
            byte_ranks[left[0] * 256 + right[0]] = rank
    lefts = np.array([ids[left] for left, _ in merges], np.uint64)
    rights = np.array([ids[right] for _, right in merges], np.uint64)
    merged_ids = np.array([ids[left + right] for left, right in merges], np.uint32)
    byte_ids = np.array([ids[bytes([byte])] for byte in range(256)], np.uint32)
    # A quarter full at the most: nearly every pair that has no rank then finds an empty slot at once.
    pair_slots = aligned_zeros(2 ** max(10, (2 * len(merges)).bit_length()), np.uint64)
    fill_pair_slots(pair_slots, lefts, rights)
    return MergeTables(byte_ranks, pair_slots, merged_ids, byte_ids)


class _Workspace:
    """What one call writes to."""

    def __init__(self, tables: MergeTables, id_dtype: np.dtype):
        self._tables, self._id_dtype = tables, id_dtype
        self.text = np.zeros(SMALL_BYTES + PADDING, np.uint8)
        self.text_view = memoryview(self.text)
        self.out = np.empty(SMALL_BYTES + _SLACK_IDS, id_dtype)
        self._scratch = Scratch(
            starts=np.empty(STARTS_CAPACITY, np.uint32),
            keys=np.empty(KEYS_CAPACITY, np.uint64),
            symbols=aligned_zeros(MASKED_CAPACITY, np.uint32),
            ranks=aligned_zeros(MASKED_CAPACITY, np.uint32),
        )
        self._make_cache(FIRST_CACHED_WORDS)

    def make_room(self) -> None:
        """Give the cache four times the room, or start it over if it is as large as it may be."""
        old = self._cache
        if self._words == MOST_CACHED_WORDS:
            for array in (old.slots, old.long_slots, old.used):
                array[:] = 0
            return
        self._make_cache(4 * self._words)
        new = self._cache
        rehash(old.slots, new.slots, True)
        rehash(old.long_slots, new.long_slots, False)
        new.arena[: len(old.arena)] = old.arena
        new.long_bytes[: len(old.long_bytes)] = old.long_bytes
        new.used[:] = old.used

    def _make_cache(self, words: int) -> None:
        """Make an empty cache for so many short words and half as many long ones."""
        self._words = words
        self._cache = WordCache(
            slots=aligned_zeros(4 * 2 * words, np.uint64),
            arena=np.empty(8 * words + _BATCH_BYTES, self._id_dtype),
            long_slots=aligned_zeros(4 * words, np.uint64),
            long_bytes=np.empty(16 * words + _BATCH_BYTES, np.uint8),
            used=np.zeros(USED_FIELDS, np.int64),
        )
        self.bundle = make_bundle([class_bits(), *self._tables, *self._cache, *self._scratch])

    def room_for(self, num_ids: int) -> np.ndarray:
        """Return an array for so many ids; the same one again, so that its memory stays at hand."""
        if len(self.out) < num_ids + _SLACK_IDS:
            self.out = np.empty(num_ids + _SLACK_IDS, self._id_dtype)
        return self.out


class FastEncoder:
    """Encode and decode with the compiled kernels."""

    small_bytes = SMALL_BYTES

    def __init__(self, vocabulary: Vocabulary, id_dtype: np.dtype):
        self._id_dtype = id_dtype
        self._idle: list[_Workspace] = []
        lengths = [len(token) for token in vocabulary.tokens]
        self._lengths = np.array(lengths, np.int64)
        self._offsets = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        self._token_bytes = np.frombuffer(b"".join(vocabulary.tokens) + bytes(SLACK_BYTES), np.uint8)

        def warm_up() -> None:
            self._tables = build_merge_tables(vocabulary)
            self.encode(b"a")
            ids = self.encode_block(block_of(b"a"), SpecialTokenFinder(["<|a|>"]), {})
            self._idle.pop().make_room()
            self.decode(ids)

        prepare(_name_of(id_dtype), warm_up)

    def encode(self, text: bytes) -> np.ndarray:
        """Return the ids of at most SMALL_BYTES of UTF-8 without special tokens, [tokens]."""
        workspace, size = self._borrow(), len(text)
        workspace.text_view[:size] = text
        while (count := encode_text(workspace.text, size, workspace.out, workspace.bundle)) < 0:
            workspace.make_room()
        ids = workspace.out[:count].copy()
        self._idle.append(workspace)
        return ids

    def encode_block(self, block: Block, specials: SpecialTokenFinder, special_ids: Mapping[str, int]) -> np.ndarray:
        """Return the ids of a block and of the special tokens in it, [tokens].

        Raises ValueError if the block is not UTF-8.
        """
        segments = cut_at_specials(block, specials, special_ids)
        progress, status = np.zeros(3, np.int64), np.full(1, -1, np.int64)
        workspace = self._borrow()
        out = workspace.room_for(block.size + len(segments))
        while not encode_segments(block.buffer, segments, out, progress, status, workspace.bundle):
            workspace.make_room()
        ids = out[: progress[2]].copy()
        self._idle.append(workspace)
        if status[0] >= 0:
            block.decode()  # says what is wrong, and raises
            raise AssertionError("the kernels and Python disagree about UTF-8")
        return ids

    def decode(self, ids: np.ndarray) -> bytes:
        """Return the bytes of ids, all of which must be in the vocabulary."""
        out = np.empty(int(self._lengths[ids].sum()) + SLACK_BYTES, np.uint8)
        count = decode_ids(np.ascontiguousarray(ids), self._offsets, self._lengths, self._token_bytes, out)
        return out[:count].tobytes()

    def _borrow(self) -> _Workspace:
        """Take a workspace that no other call has meanwhile; it goes back to `_idle`, and is lost if anything fails."""
        try:
            return self._idle.pop()
        except IndexError:
            return _Workspace(self._tables, self._id_dtype)
