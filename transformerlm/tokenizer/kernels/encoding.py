"""Text to token ids: find pretokens, look each up among the words seen before, merge the few that are new.

Of real text more than 95 words in 100 were seen before, so encoding is mostly hashing and copying. The caller gives
the cache more room when it is full, or empties it: the frequent words are soon back.
"""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.memory import load32, load64, store64, view
from transformerlm.tokenizer.kernels.merging import (
    LONGEST_MASKED_WORD,
    WINDOW_BYTES,
    MergeTables,
    merge_long,
    merge_masked,
)
from transformerlm.tokenizer.kernels.pretokens import ZERO, find_starts
from transformerlm.tokenizer.kernels.words import (
    KEY_BYTES,
    KEYS_AT_ONCE,
    LONGEST_SHORT_WORD,
    find_long,
    find_short,
    insert_long,
    make_keys,
)
from transformerlm.utils.jit import inlined, kernel

LONGEST_CACHED_WORD = 255
INLINE_BYTES = 14
"""Ids that take no more lie in the slot itself; the other two bytes of the payload are their number."""
OUTPUT_SLACK_BYTES = 16
"""`encode_segments` writes so much behind the last id, because it copies whole payloads."""

SHORT_USED, ARENA_USED, LONG_USED, LONG_BYTES_USED = range(4)
USED_FIELDS = 4

_COUNT_SHIFT = np.uint64(48)
_IN_ARENA = 0xFFFF
_LOW32 = np.uint64(0xFFFFFFFF)


class WordCache(NamedTuple):
    """What one thread remembers. Payload of a short word: its ids, or where they lie in the arena."""

    slots: np.ndarray
    """uint64 [4 * slots], a power of two of slots; see words.py."""
    arena: np.ndarray
    """uint16 or uint32 [ids], of long words and of short ones with many ids."""
    long_slots: np.ndarray
    """uint64 [4 * slots]; payload: arena offset << 16 | number of ids."""
    long_bytes: np.ndarray
    """uint8 [bytes]."""
    used: np.ndarray
    """int64 [USED_FIELDS]: how much of each is taken."""


class Scratch(NamedTuple):
    """Working memory of one thread."""

    starts: np.ndarray
    """uint32 [STARTS_CAPACITY]."""
    keys: np.ndarray
    """uint64 [KEYS_CAPACITY]."""
    symbols: np.ndarray
    """uint32 [MASKED_CAPACITY]."""
    ranks: np.ndarray
    """uint32 [MASKED_CAPACITY]."""


@inlined
def has_room(cache, words):
    """Tell whether all parts of the cache have room for so many words more, the tables at most half full."""
    used = cache.used
    return (
        2 * (used[SHORT_USED] + words) <= cache.slots.size // 4
        and 2 * (used[LONG_USED] + words) <= cache.long_slots.size // 4
        and used[ARENA_USED] + words * LONGEST_CACHED_WORD <= cache.arena.size
        and used[LONG_BYTES_USED] + words * LONGEST_CACHED_WORD <= cache.long_bytes.size
    )


@inlined
def encode_new_word(text, position, length, slot, key0, key1, out, out_at, tables, cache, scratch):
    """Merge a short word, append its ids and remember them in an empty slot; returns the end of `out`."""
    count = merge_masked(text, position, length, tables, scratch.symbols, scratch.ranks)
    for index in range(count):
        out[out_at + index] = scratch.symbols[index]
    used = cache.used
    used[SHORT_USED] += 1
    payload0, payload1 = ZERO, np.uint64(count) << _COUNT_SHIFT
    if count * out.itemsize <= INLINE_BYTES:
        id_bits = 8 * out.itemsize
        for index in range(count):
            shift, token = index * id_bits, np.uint64(scratch.symbols[index])
            if shift < 64:
                payload0 |= token << np.uint64(shift)
            else:
                payload1 |= token << np.uint64(shift - 64)
    else:
        payload0, payload1 = np.uint64(used[ARENA_USED]), (np.uint64(_IN_ARENA) << _COUNT_SHIFT) | np.uint64(count)
        for index in range(count):
            cache.arena[used[ARENA_USED] + index] = scratch.symbols[index]
        used[ARENA_USED] += count
    store64(cache.slots, slot, key0)
    store64(cache.slots, slot + 8, key1)
    store64(cache.slots, slot + 16, payload0)
    store64(cache.slots, slot + 24, payload1)
    return out_at + count


@inlined
def copy_from_arena(arena, offset, count, out, out_at):
    """Append ids that the arena holds; returns the end of `out`."""
    for index in range(count):
        out[out_at + index] = arena[offset + index]
    return out_at + count


@inlined
def copy_ids(cache, slot, out, out_at):
    """Append the ids that a slot of a short word holds; returns the end of `out`."""
    payload0, payload1 = load64(cache.slots, slot + 16), load64(cache.slots, slot + 24)
    count = np.int64(payload1 >> _COUNT_SHIFT)
    if count == _IN_ARENA:
        return copy_from_arena(cache.arena, np.int64(payload0), np.int64(payload1 & _LOW32), out, out_at)
    store64(out, out_at * out.itemsize, payload0)
    store64(out, out_at * out.itemsize + 8, payload1)
    return out_at + count


@kernel
def encode_long_word(text, position, length, out, out_at, tables, cache, scratch):
    """Append the ids of a long word, and remember them if it is not too long; returns the end of `out`."""
    slot, value, used = -1, ZERO, cache.used
    if length <= LONGEST_CACHED_WORD:
        slot_mask = cache.long_slots.size // 4 - 1
        slot, value = find_long(cache.long_slots, slot_mask, cache.long_bytes, text, position, length)
        if load64(cache.long_slots, slot + 16) != ZERO:
            payload = np.int64(load64(cache.long_slots, slot + 24))
            return copy_from_arena(cache.arena, payload >> 16, payload & 0xFFFF, out, out_at)
    if length <= LONGEST_MASKED_WORD:
        count = merge_masked(text, position, length, tables, scratch.symbols, scratch.ranks)
        for index in range(count):
            out[out_at + index] = scratch.symbols[index]
    else:
        count = merge_long(text, position, length, tables, WINDOW_BYTES, out, out_at) - out_at
    if slot >= 0:
        insert_long(cache.long_slots, slot, value, cache.long_bytes, used[LONG_BYTES_USED], text, position, length)
        store64(cache.long_slots, slot + 24, np.uint64((used[ARENA_USED] << 16) | count))
        for index in range(count):
            cache.arena[used[ARENA_USED] + index] = out[out_at + index]
        used[LONG_USED] += 1
        used[LONG_BYTES_USED] += length
        used[ARENA_USED] += count
    return out_at + count


@kernel
def encode_words(text, begin, words, out, out_at, tables, cache, scratch):
    """Append the ids of a batch of pretokens, scratch.starts counted from `begin`; returns the end of `out`."""
    slots, keys, starts = cache.slots, scratch.keys, scratch.starts
    slot_mask = slots.size // 4 - 1
    for index in range(words):
        key = (index & (KEYS_AT_ONCE - 1)) * KEY_BYTES
        if key == 0:
            make_keys(text, begin, starts, index, min(words, index + KEYS_AT_ONCE), slots, slot_mask, keys)
        key0, key1, slot = load64(keys, key), load64(keys, key + 8), np.int64(load64(keys, key + 16))
        if load64(slots, slot + 8) != key1 or load64(slots, slot) != key0:
            start = np.int64(load32(starts, index << 2))
            length = np.int64(load32(starts, (index << 2) + 4)) - start
            if length > LONGEST_SHORT_WORD:
                out_at = encode_long_word(text, begin + start, length, out, out_at, tables, cache, scratch)
                continue
            slot = find_short(slots, slot_mask, slot, key0, key1)
            if load64(slots, slot + 8) == ZERO:
                out_at = encode_new_word(
                    text, begin + start, length, slot, key0, key1, out, out_at, tables, cache, scratch
                )
                continue
        out_at = copy_ids(cache, slot, out, out_at)
    return out_at


@inlined
def open_bundle(bundle, id_dtype):
    """Return (class_bits, MergeTables, WordCache, Scratch) from the bundle that FastEncoder makes."""
    u64, u32 = np.uint64, np.uint32
    tables = MergeTables(view(bundle, 1, u32), view(bundle, 2, u64), view(bundle, 3, u32), view(bundle, 4, u32))
    cache = WordCache(
        view(bundle, 5, u64),
        view(bundle, 6, id_dtype),
        view(bundle, 7, u64),
        view(bundle, 8, np.uint8),
        view(bundle, 9, np.int64),
    )
    scratch = Scratch(view(bundle, 10, u32), view(bundle, 11, u64), view(bundle, 12, u32), view(bundle, 13, u32))
    return view(bundle, 0, u64), tables, cache, scratch


@kernel
def encode_text(text, end, out, bundle):
    """Encode text[: end], which holds few words and no special token; returns the number of ids.

    Much like encode_segments, with less to unpack: for prompts. Returns -1 if the cache wants to grow.
    """
    class_bits, tables, cache, scratch = open_bundle(bundle, out.dtype)
    status = np.zeros(1, np.int64)
    words, _ = find_starts(text, 0, end, class_bits, scratch.starts, status)
    if not has_room(cache, words):
        return -1
    return encode_words(text, 0, words, out, 0, tables, cache, scratch)


@kernel
def encode_segments(text, segments, out, progress, status, bundle):
    """Encode stretches of a text, each as a text of its own, and append a special token where one follows.

    text: uint8, PADDING bytes longer than its last segment.  segments: int64 [segments, 3]: begin, end, and the id of
    the special token behind, or -1.  out: uint16 or uint32, one id for each byte and each special token, and
    OUTPUT_SLACK_BYTES more: no token is shorter than a byte.  progress: int64 [3]: the segment, the place in it, and
    the ids written; zeros at first, then where to go on.  status: int64 [1], set to the place of the first byte that
    is not UTF-8, if there is one.
    Returns whether all is done; if not, the cache wants to grow.
    """
    class_bits, tables, cache, scratch = open_bundle(bundle, out.dtype)
    row, place, count = progress[0], progress[1], progress[2]
    while row < segments.shape[0]:
        place, end = max(place, segments[row, 0]), segments[row, 1]
        while place < end:
            words, following = find_starts(text, place, end, class_bits, scratch.starts, status)
            if not has_room(cache, words):
                progress[0], progress[1], progress[2] = row, place, count
                return False
            count = encode_words(text, place, words, out, count, tables, cache, scratch)
            place = following
        if segments[row, 2] >= 0:
            out[count] = segments[row, 2]
            count += 1
        row += 1
    progress[0], progress[1], progress[2] = row, place, count
    return True
