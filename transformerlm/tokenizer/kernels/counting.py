"""Count the distinct pretokens of a corpus, and lay them out for the merge loop of learning.py."""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.memory import load32, load64, store64, view
from transformerlm.tokenizer.kernels.pretokens import ONE, ZERO, find_starts
from transformerlm.tokenizer.kernels.words import (
    KEY_BYTES,
    KEYS_AT_ONCE,
    LONGEST_SHORT_WORD,
    find_long,
    find_short,
    hash_short,
    insert_long,
    make_keys,
)
from transformerlm.utils.jit import inlined, kernel

SHORT_USED, LONG_USED, LONG_BYTES_USED, WORDS, WORD_BYTES = range(5)
USED_FIELDS = 5

HEADER = 3
"""int32 before the symbols of a laid out word: the count's low 31 bits, its high bits, the number of symbols."""

_LOW31 = np.uint64(0x7FFFFFFF)
_LENGTH_SHIFT = np.uint64(56)


class CountTable(NamedTuple):
    """How often each pretoken occurred; the layout of words.py with the count as payload."""

    slots: np.ndarray
    long_slots: np.ndarray
    long_bytes: np.ndarray
    used: np.ndarray
    """int64 [USED_FIELDS]."""


@inlined
def open_table(bundle, row):
    """Return the CountTable whose arrays stand in a bundle from a row on."""
    return CountTable(
        view(bundle, row, np.uint64),
        view(bundle, row + 1, np.uint64),
        view(bundle, row + 2, np.uint8),
        view(bundle, row + 3, np.int64),
    )


@inlined
def has_room(table, words, num_bytes):
    """Tell whether so many new words of so many bytes in all would leave both tables at most half full."""
    return (
        2 * (table.used[SHORT_USED] + words) <= table.slots.size // 4
        and 2 * (table.used[LONG_USED] + words) <= table.long_slots.size // 4
        and table.used[LONG_BYTES_USED] + num_bytes <= table.long_bytes.size
    )


@kernel
def add_long_word(text, position, length, table, count):
    """Add to the count of a long word."""
    slot_mask = table.long_slots.size // 4 - 1
    slot, value = find_long(table.long_slots, slot_mask, table.long_bytes, text, position, length)
    if load64(table.long_slots, slot + 16) == ZERO:
        offset = table.used[LONG_BYTES_USED]
        insert_long(table.long_slots, slot, value, table.long_bytes, offset, text, position, length)
        table.used[LONG_USED] += 1
        table.used[LONG_BYTES_USED] += length
    store64(table.long_slots, slot + 24, load64(table.long_slots, slot + 24) + count)


@inlined
def add_short_word(table, slot_mask, slot, key0, key1, count):
    """Add to the count of a short word, whose key leads to a slot."""
    slots = table.slots
    slot = find_short(slots, slot_mask, slot, key0, key1)
    if load64(slots, slot + 8) == ZERO:
        store64(slots, slot, key0)
        store64(slots, slot + 8, key1)
        table.used[SHORT_USED] += 1
    store64(slots, slot + 16, load64(slots, slot + 16) + count)


@kernel
def count_words(text, begin, words, starts, keys, table):
    """Count a batch of pretokens, `starts` counted from `begin`."""
    slots = table.slots
    slot_mask = slots.size // 4 - 1
    for index in range(words):
        key = (index & (KEYS_AT_ONCE - 1)) * KEY_BYTES
        if key == 0:
            make_keys(text, begin, starts, index, min(words, index + KEYS_AT_ONCE), slots, slot_mask, keys)
        key0, key1, slot = load64(keys, key), load64(keys, key + 8), np.int64(load64(keys, key + 16))
        if load64(slots, slot + 8) == key1 and load64(slots, slot) == key0:
            store64(slots, slot + 16, load64(slots, slot + 16) + ONE)
            continue
        start = np.int64(load32(starts, index << 2))
        length = np.int64(load32(starts, (index << 2) + 4)) - start
        if length > LONGEST_SHORT_WORD:
            add_long_word(text, begin + start, length, table, ONE)
        else:
            add_short_word(table, slot_mask, slot, key0, key1, ONE)
    table.used[WORDS] += words


@kernel
def count_segments(text, segments, row, position, status, bundle):
    """Count the pretokens of stretches of a text, from a place in one of them until done or the table is full.

    text: uint8, PADDING bytes longer than its last segment.  segments: int64 [segments, 3], begin and end first.
    status: int64 [1], set to the place of the first byte that is not UTF-8, if there is one.
    bundle: class_bits, starts, keys, then the arrays of a CountTable.
    Returns (row, position) to go on from once the table has grown; row == len(segments) when done.
    """
    class_bits, starts, keys = view(bundle, 0, np.uint64), view(bundle, 1, np.uint32), view(bundle, 2, np.uint64)
    table = open_table(bundle, 3)
    while row < segments.shape[0]:
        position, end = max(position, segments[row, 0]), segments[row, 1]
        while position < end:
            words, following = find_starts(text, position, end, class_bits, starts, status)
            if not has_room(table, words, following - position):
                return row, position
            count_words(text, position, words, starts, keys, table)
            table.used[WORD_BYTES] += following - position
            position = following
        row += 1
    return row, position


@kernel
def absorb(target_bundle, source_bundle):
    """Add the counts of one CountTable to another, which must have room for all of its words."""
    target, source = open_table(target_bundle, 0), open_table(source_bundle, 0)
    slot_mask = target.slots.size // 4 - 1
    for index in range(0, source.slots.size, 4):
        key0, key1 = source.slots[index], source.slots[index + 1]
        if key1 != ZERO:
            slot = (np.int64(hash_short(key0, key1)) & slot_mask) * 32
            add_short_word(target, slot_mask, slot, key0, key1, source.slots[index + 2])
    for index in range(0, source.long_slots.size, 4):
        length = np.int64(source.long_slots[index + 2])
        if length != 0:
            offset = np.int64(source.long_slots[index + 1])
            add_long_word(source.long_bytes, offset, length, target, source.long_slots[index + 3])
    target.used[WORDS] += source.used[WORDS]
    target.used[WORD_BYTES] += source.used[WORD_BYTES]


@kernel
def measure_words(slots, long_slots):
    """Return what laying out needs: (bytes in distinct words that can merge, number of such words)."""
    num_bytes, words = 0, 0
    for index in range(0, slots.size, 4):
        length = np.int64(slots[index + 1] >> _LENGTH_SHIFT)
        if length > 1:
            num_bytes += length
            words += 1
    for index in range(0, long_slots.size, 4):
        length = np.int64(long_slots[index + 2])
        if length > 0:
            num_bytes += length
            words += 1
    return num_bytes, words


@inlined
def _write_header(records, place, count, length):
    records[place] = np.int32(count & _LOW31)
    records[place + 1] = np.int32(count >> np.uint64(31))
    records[place + 2] = np.int32(length)


@kernel
def lay_out_words(slots, long_slots, long_bytes, records):
    """Write the words of two bytes or more behind each other, each with its header and its bytes as symbols.

    records: int32 [bytes + HEADER * words], as measure_words says.
    """
    place = 0
    for index in range(0, slots.size, 4):
        length = np.int64(slots[index + 1] >> _LENGTH_SHIFT)
        if length > 1:
            _write_header(records, place, slots[index + 2], length)
            for byte in range(length):
                word = slots[index + (byte >> 3)] >> np.uint64(8 * (byte & 7))
                records[place + HEADER + byte] = np.int32(word & np.uint64(0xFF))
            place += HEADER + length
    for index in range(0, long_slots.size, 4):
        length = np.int64(long_slots[index + 2])
        if length > 0:
            offset = np.int64(long_slots[index + 1])
            _write_header(records, place, long_slots[index + 3], length)
            for byte in range(length):
                records[place + HEADER + byte] = long_bytes[offset + byte]
            place += HEADER + length
