"""Hash tables keyed by pretokens: what the encoder remembers and the trainer counts.

A short word, up to 15 bytes, is its own key: two uint64 that hold its bytes and, in the highest byte, its length. So
comparing words is comparing two numbers. A long word is found by hash and then compared byte by byte.

    short slots, uint64 [slots, 4]      key0 | key1 | payload | payload       key1 = 0: empty
    long slots, uint64 [slots, 4]       hash | offset of the bytes | length | payload       length = 0: empty

Both tables probe one slot after the other, and are never more than half full: whoever fills them sees to that.
"""

import numpy as np

from transformerlm.tokenizer.kernels.memory import load8, load32, load64, prefetch, store64
from transformerlm.tokenizer.kernels.pretokens import ONE, ZERO
from transformerlm.utils.jit import inlined, kernel

LONGEST_SHORT_WORD = 15
SLOT_BYTES = 32
KEY_BYTES = 24
KEYS_AT_ONCE = 128
"""Words whose slots are fetched before the first of them is needed; a power of two."""
KEYS_CAPACITY = 3 * KEYS_AT_ONCE

_MULTIPLIER0 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio; an odd number with its bits well spread
_MULTIPLIER1 = np.uint64(0xA0761D6478BD642F)  # another such
_HALF = np.uint64(32)
_MIX = np.uint64(29)


def _short_masks() -> np.ndarray:
    """Return, for lengths 0 to 16, the masks of the two words and the length in its place: uint64 [3 * 17].

    Length 16 stands for every long word; its key equals that of no short one.
    """
    masks = np.zeros((LONGEST_SHORT_WORD + 2, 3), np.uint64)
    for length in range(LONGEST_SHORT_WORD + 1):
        masks[length] = ((1 << 8 * min(length, 8)) - 1, (1 << 8 * max(length - 8, 0)) - 1, length << 56)
    masks[LONGEST_SHORT_WORD + 1, 2] = 0xFF << 56
    return masks.reshape(-1)


_MASKS = _short_masks()


@inlined
def hash_short(key0, key1):
    """Spread a short word's key over 64 bits."""
    mixed = (key0 ^ (key1 * _MULTIPLIER1)) * _MULTIPLIER0
    return mixed ^ (mixed >> _HALF)


@kernel
def hash_long(text, position, length):
    """Hash the bytes of a word, eight at a time."""
    value = np.uint64(length) * _MULTIPLIER0
    index = 0
    while index + 8 <= length:
        value = (value ^ load64(text, position + index)) * _MULTIPLIER1
        value ^= value >> _MIX
        index += 8
    if index < length:
        rest = load64(text, position + index) & ((ONE << np.uint64(8 * (length - index))) - ONE)
        value = (value ^ rest) * _MULTIPLIER1
        value ^= value >> _MIX
    return value ^ (value >> _HALF)


@inlined
def make_keys(text, begin, starts, first, last, slots, slot_mask, keys):
    """Write key0, key1 and the byte offset of the first slot of some words, and fetch those slots into the cache.

    Doing so for many words hides the memory's latency: the slots arrive while later keys are made.
    """
    start = np.int64(load32(starts, first << 2))
    for index in range(last - first):
        end = np.int64(load32(starts, ((first + index) << 2) + 4))
        length, position = end - start, begin + start
        start = end
        if length > LONGEST_SHORT_WORD:
            length = LONGEST_SHORT_WORD + 1
        mask = length * (3 * 8)
        key0 = load64(text, position) & load64(_MASKS, mask)
        key1 = (load64(text, position + 8) & load64(_MASKS, mask + 8)) | load64(_MASKS, mask + 16)
        slot = (np.int64(hash_short(key0, key1)) & slot_mask) * SLOT_BYTES
        prefetch(slots, slot)
        store64(keys, index * KEY_BYTES, key0)
        store64(keys, index * KEY_BYTES + 8, key1)
        store64(keys, index * KEY_BYTES + 16, np.uint64(slot))


@inlined
def find_short(slots, slot_mask, slot, key0, key1):
    """Return the byte offset of the slot that holds a short word, or of the empty one where it belongs."""
    while True:
        found = load64(slots, slot + 8)
        if found == ZERO or (found == key1 and load64(slots, slot) == key0):
            return slot
        slot = (slot + SLOT_BYTES) & (slot_mask * SLOT_BYTES + SLOT_BYTES - 1)


@inlined
def _equal_bytes(stored, offset, text, position, length):
    index = 0
    while index < length and load8(stored, offset + index) == load8(text, position + index):
        index += 1
    return index == length


@kernel
def find_long(slots, slot_mask, long_bytes, text, position, length):
    """Return (slot, hash): the byte offset of the slot that holds a long word, or the empty one where it belongs.

    text[position : position + length] is the word; long_bytes: uint8, the bytes of all words in the table.
    """
    value = hash_long(text, position, length)
    slot = (np.int64(value) & slot_mask) * SLOT_BYTES
    while True:
        found = np.int64(load64(slots, slot + 16))
        if found == 0:
            return slot, value
        if found == length and load64(slots, slot) == value:
            offset = np.int64(load64(slots, slot + 8))
            if _equal_bytes(long_bytes, offset, text, position, length):
                return slot, value
        slot = (slot + SLOT_BYTES) & (slot_mask * SLOT_BYTES + SLOT_BYTES - 1)


@kernel
def insert_long(slots, slot, value, long_bytes, offset, text, position, length):
    """Copy a long word to long_bytes[offset :] and enter it into an empty slot; its payload stays as it is."""
    for index in range(length):
        long_bytes[offset + index] = text[position + index]
    store64(slots, slot, value)
    store64(slots, slot + 8, np.uint64(offset))
    store64(slots, slot + 16, np.uint64(length))


@kernel
def rehash(old, new, is_short):
    """Move the words of one table, short or long, into another one, empty and at least as large."""
    mask = new.size // 4 - 1
    for index in range(0, old.size, 4):
        if old[index + 1 if is_short else index + 2] == ZERO:
            continue
        value = hash_short(old[index], old[index + 1]) if is_short else old[index]
        slot = np.int64(value) & mask
        while new[4 * slot + 1 if is_short else 4 * slot + 2] != ZERO:
            slot = (slot + 1) & mask
        for field in range(4):
            new[4 * slot + field] = old[index + field]
