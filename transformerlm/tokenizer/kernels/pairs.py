"""The tables of the merge loop: tokens, the pairs of them that occur, and a heap that says which pair is next.

The heap holds only pairs above a threshold, which falls whenever the heap runs dry: most pairs are too rare ever to be
looked at. Counts in the heap may be too high, never too low, since a pair loses occurrences but gains none after the
merge that made it; the top is corrected when it comes up.
"""

from typing import NamedTuple

import numpy as np

from transformerlm.utils.jit import inlined, kernel

NUM_TOKENS, NUM_PAIRS, POOL_USED, HEAP_SIZE, THRESHOLD, TOKEN_BYTES_USED, LONGEST_TOKEN, NUM_MERGES, SAVED = range(9)
NUM_NUMBERS = 9
"""Places in the array of numbers that all of this shares."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ID_SHIFT, _HALF = np.uint64(21), np.uint64(32)
_EMPTY = np.uint64(0)
_ONE = np.uint64(1)


class Tokens(NamedTuple):
    """The bytes of every token, to break ties."""

    prefixes: np.ndarray
    """uint64 [tokens]: the first eight bytes, the first one highest, so that numbers compare as bytes do."""
    offsets: np.ndarray
    """int64 [tokens]."""
    lengths: np.ndarray
    """int32 [tokens]."""
    text: np.ndarray
    """uint8 [bytes]."""


class Pairs(NamedTuple):
    """All pairs that ever were, by number."""

    lefts: np.ndarray
    """int32 [pairs]."""
    rights: np.ndarray
    """int32 [pairs]."""
    counts: np.ndarray
    """int64 [pairs]."""
    firsts: np.ndarray
    """int64 [pairs]: where its words begin in the pool."""
    lengths: np.ndarray
    """int32 [pairs]: how many words there are."""
    is_queued: np.ndarray
    """uint8 [pairs]: 1 for those in the heap."""
    pool: np.ndarray
    """int32 [occurrences]: places of words."""
    slots: np.ndarray
    """uint64 [slots]: hash table, (left << 21 | right) + 1, or 0."""
    slot_pairs: np.ndarray
    """int32 [slots]: the pair's number."""


class Heap(NamedTuple):
    """The best pair first."""

    counts: np.ndarray
    """int64 [pairs]."""
    pairs: np.ndarray
    """int32 [pairs]."""


@inlined
def compare_tokens(first, second, tokens):
    """Compare two tokens as byte strings: below 0, 0 or above 0."""
    if first == second:
        return 0
    if tokens.prefixes[first] != tokens.prefixes[second]:
        return 1 if tokens.prefixes[first] > tokens.prefixes[second] else -1
    shorter = min(tokens.lengths[first], tokens.lengths[second])
    for index in range(shorter):
        byte1, byte2 = tokens.text[tokens.offsets[first] + index], tokens.text[tokens.offsets[second] + index]
        if byte1 != byte2:
            return 1 if byte1 > byte2 else -1
    return np.int64(tokens.lengths[first]) - np.int64(tokens.lengths[second])


@inlined
def wins_tie(first, second, pairs, tokens):
    """Tell whether the first of two pairs that occur equally often is the greater, left token first."""
    order = compare_tokens(pairs.lefts[first], pairs.lefts[second], tokens)
    if order == 0:
        order = compare_tokens(pairs.rights[first], pairs.rights[second], tokens)
    return order > 0


@inlined
def is_better(count1, pair1, count2, pair2, pairs, tokens):
    """Tell whether one pair goes before another."""
    return count1 > count2 or (count1 == count2 and wins_tie(pair1, pair2, pairs, tokens))


@inlined
def sift_down(heap, size, place, pairs, tokens):
    """Let the entry at a place sink to where it belongs."""
    count, pair = heap.counts[place], heap.pairs[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        right = child + 1
        if right < size and is_better(
            heap.counts[right], heap.pairs[right], heap.counts[child], heap.pairs[child], pairs, tokens
        ):
            child = right
        if not is_better(heap.counts[child], heap.pairs[child], count, pair, pairs, tokens):
            break
        heap.counts[place], heap.pairs[place] = heap.counts[child], heap.pairs[child]
        place = child
    heap.counts[place], heap.pairs[place] = count, pair


@inlined
def push(heap, numbers, pair, pairs, tokens):
    """Add a pair with its count."""
    place, count = numbers[HEAP_SIZE], pairs.counts[pair]
    numbers[HEAP_SIZE] += 1
    pairs.is_queued[pair] = 1
    while place > 0:
        parent = (place - 1) >> 1
        if not is_better(count, pair, heap.counts[parent], heap.pairs[parent], pairs, tokens):
            break
        heap.counts[place], heap.pairs[place] = heap.counts[parent], heap.pairs[parent]
        place = parent
    heap.counts[place], heap.pairs[place] = count, pair


@kernel
def refill(heap, numbers, pairs, tokens):
    """Lower the threshold to an eighth of the highest count, and fill the empty heap with the pairs above it."""
    highest = 0
    for pair in range(numbers[NUM_PAIRS]):
        highest = max(highest, pairs.counts[pair])
    threshold = max(1, highest >> 3)
    size = 0
    for pair in range(numbers[NUM_PAIRS]):
        if pairs.counts[pair] >= threshold:
            heap.counts[size], heap.pairs[size] = pairs.counts[pair], pair
            pairs.is_queued[pair] = 1
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, place, pairs, tokens)
    numbers[THRESHOLD], numbers[HEAP_SIZE] = threshold, size


@inlined
def pop_best(heap, numbers, pairs, tokens):
    """Take the best pair out of the heap; returns its number, or -1 if no pair is left."""
    while True:
        if numbers[HEAP_SIZE] == 0:
            refill(heap, numbers, pairs, tokens)
            if numbers[HEAP_SIZE] == 0:
                return -1
        pair = heap.pairs[0]
        count, is_true = pairs.counts[pair], heap.counts[0] == pairs.counts[pair]
        if is_true or count < numbers[THRESHOLD]:
            numbers[HEAP_SIZE] -= 1
            last = numbers[HEAP_SIZE]
            heap.counts[0], heap.pairs[0] = heap.counts[last], heap.pairs[last]
            pairs.is_queued[pair] = 0
        else:
            heap.counts[0] = count
        if numbers[HEAP_SIZE] > 1:
            sift_down(heap, numbers[HEAP_SIZE], 0, pairs, tokens)
        if is_true:
            return np.int64(pair)


@kernel
def add_token(left, right, tokens, numbers):
    """Append the token that a pair spells; returns its symbol."""
    symbol, offset = numbers[NUM_TOKENS], numbers[TOKEN_BYTES_USED]
    length = np.int64(0)
    for part in (left, right):
        for index in range(tokens.lengths[part]):
            tokens.text[offset + length] = tokens.text[tokens.offsets[part] + index]
            length += 1
    prefix = np.uint64(0)
    for index in range(8):
        byte = tokens.text[offset + index] if index < length else 0
        prefix = (prefix << np.uint64(8)) | np.uint64(byte)
    tokens.prefixes[symbol], tokens.offsets[symbol], tokens.lengths[symbol] = prefix, offset, length
    numbers[NUM_TOKENS] += 1
    numbers[TOKEN_BYTES_USED] += length
    numbers[LONGEST_TOKEN] = max(numbers[LONGEST_TOKEN], length)
    return symbol


@inlined
def find_slot(slots, left, right):
    """Return the slot of a pair, or the empty one where it belongs."""
    mask = slots.size - 1
    key = ((np.uint64(left) << _ID_SHIFT) | np.uint64(right)) + _ONE
    slot = np.int64((key * _MULTIPLIER) >> _HALF) & mask
    while slots[slot] != _EMPTY and slots[slot] != key:
        slot = (slot + 1) & mask
    return slot


@inlined
def add_pair(left, right, count, words, pairs, numbers):
    """Enter a new pair with room for its words; returns its number."""
    pair = numbers[NUM_PAIRS]
    numbers[NUM_PAIRS] += 1
    pairs.lefts[pair], pairs.rights[pair], pairs.counts[pair] = left, right, count
    pairs.firsts[pair], pairs.lengths[pair], pairs.is_queued[pair] = numbers[POOL_USED], 0, 0
    numbers[POOL_USED] += words
    slot = find_slot(pairs.slots, left, right)
    pairs.slots[slot] = ((np.uint64(left) << _ID_SHIFT) | np.uint64(right)) + _ONE
    pairs.slot_pairs[slot] = pair
    return pair


@inlined
def add_occurrence(pair, place, pairs):
    """Note that a word holds a pair."""
    pairs.pool[pairs.firsts[pair] + pairs.lengths[pair]] = place
    pairs.lengths[pair] += 1


@kernel
def fill_slots(pairs, num_pairs, slots, slot_pairs):
    """Enter pairs into a larger, empty hash table."""
    for pair in range(num_pairs):
        left, right = np.int64(pairs.lefts[pair]), np.int64(pairs.rights[pair])
        slot = find_slot(slots, left, right)
        slots[slot] = ((np.uint64(left) << _ID_SHIFT) | np.uint64(right)) + _ONE
        slot_pairs[slot] = pair
