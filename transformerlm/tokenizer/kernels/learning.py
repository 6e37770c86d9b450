"""The merge loop: join the most frequent pair everywhere, bring the counts up to date, and again.

What ../trainer.py does, compiled. The distinct words lie behind each other in one array (see counting.py), so that
touching a word touches one place in memory. Every pair knows its count and in which words it may stand. A merge
visits those words only; what it takes from and adds to its neighbours' counts is summed per neighbour first, and
entered into the table of pairs once.

Which pair is next tells a heap that holds only pairs above a threshold, which falls whenever the heap runs dry: most
pairs are too rare ever to be looked at. Counts in the heap may be too high, never too low, since a pair loses
occurrences but gains none after the merge that made it; the top is corrected when it comes up.

All arrays are sized for the worst case by `MergeLearner` in ../fast_learning.py: each merge in a word makes it one
symbol shorter, so with S symbols in all there are at most S merges in words, each of which makes two pairs occur.
"""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.counting import HEADER
from transformerlm.tokenizer.kernels.jit import inlined, kernel
from transformerlm.tokenizer.kernels.memory import prefetch, view

NUM_TOKENS, NUM_PAIRS, POOL_USED, HEAP_SIZE, THRESHOLD, TOKEN_BYTES_USED, LONGEST_TOKEN, NUM_MERGES, SAVED = range(9)
NUM_NUMBERS = 9

NUM_BYTES = 256
GOAL_REACHED, NO_PAIR_LEFT, WANTS_ROOM = range(3)
_AHEAD = 8  # words fetched into the cache before they are visited
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


class Neighbours(NamedTuple):
    """What one merge changes, by neighbour: side * tokens + symbol."""

    lost: np.ndarray
    """int64: by how much the count of the pair with an old symbol falls."""
    gained: np.ndarray
    """int64: the count of the pair with the new symbol."""
    words: np.ndarray
    """int32: how many words hold the new pair."""
    last_word: np.ndarray
    """int64: the word seen last, so that none is entered twice; -1 at first."""
    new_pair: np.ndarray
    """int32: the number of the new pair."""
    touched: np.ndarray
    """int32: the neighbours that have any of these, in order."""
    events: np.ndarray
    """int64: neighbour << 32 | place of a word, in order."""


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


@inlined
def count_of(records, place):
    """Return how often the word at a place occurs."""
    return np.int64(records[place]) | (np.int64(records[place + 1]) << 31)


@inlined
def note_change(neighbour, lost_neighbour, count, place, changes, num_touched, num_events):
    """Sum up that the pair with one neighbour is lost and the pair with another is gained, in the word at a place.

    The two differ only between two merges of one word side by side.  Returns (num_touched, num_events).
    """
    if changes.lost[lost_neighbour] == 0 and changes.gained[lost_neighbour] == 0:
        changes.touched[num_touched] = lost_neighbour
        num_touched += 1
    changes.lost[lost_neighbour] += count
    if changes.lost[neighbour] == 0 and changes.gained[neighbour] == 0:
        changes.touched[num_touched] = neighbour
        num_touched += 1
    changes.gained[neighbour] += count
    if changes.last_word[neighbour] != place:
        changes.last_word[neighbour] = place
        changes.words[neighbour] += 1
        changes.events[num_events] = (neighbour << 32) | place
        num_events += 1
    return num_touched, num_events


@inlined
def join_in_word(records, place, left, right, symbol, changes, num_touched, num_events, numbers):
    """Replace a pair by one symbol in the word at a place; returns (num_touched, num_events)."""
    base, length = place + HEADER, np.int64(records[place + 2])
    read = np.int64(0)
    while read < length - 1 and not (records[base + read] == left and records[base + read + 1] == right):
        read += 1
    if read >= length - 1:
        return num_touched, num_events  # the pair was here when its words were noted, and is gone
    count, side = count_of(records, place), changes.lost.size >> 1
    written = read
    while read < length:
        if read == length - 1 or records[base + read] != left or records[base + read + 1] != right:
            records[base + written] = records[base + read]
            written, read = written + 1, read + 1
            continue
        if written > 0:
            before = np.int64(records[base + written - 1])
            lost = gained = before
            if before == symbol:  # merged just now: it was `right`, and the pair (right, left) is lost
                lost, gained = side + left, side + symbol
            num_touched, num_events = note_change(gained, lost, count, place, changes, num_touched, num_events)
        records[base + written] = symbol
        written, read = written + 1, read + 2
        if read < length:
            after = np.int64(records[base + read])
            is_joined_next = after == left and read < length - 1 and records[base + read + 1] == right
            if not is_joined_next:
                neighbour = side + after
                num_touched, num_events = note_change(
                    neighbour, neighbour, count, place, changes, num_touched, num_events
                )
    records[place + 2] = written
    numbers[SAVED] += count * (length - written)
    return num_touched, num_events


@inlined
def enter_changes(left, right, symbol, changes, num_touched, num_events, pairs, numbers):
    """Bring the table of pairs up to date after a merge, and forget the changes; returns the first new pair."""
    side = changes.lost.size >> 1
    first_new = numbers[NUM_PAIRS]
    for index in range(num_touched):
        neighbour = np.int64(changes.touched[index])
        is_right = neighbour >= side
        other = neighbour - side if is_right else neighbour
        if changes.lost[neighbour] != 0:
            slot = find_slot(pairs.slots, right, other) if is_right else find_slot(pairs.slots, other, left)
            pairs.counts[pairs.slot_pairs[slot]] -= changes.lost[neighbour]
        if changes.gained[neighbour] != 0:
            first, second = (symbol, other) if is_right else (other, symbol)
            count, words = changes.gained[neighbour], changes.words[neighbour]
            changes.new_pair[neighbour] = add_pair(first, second, count, words, pairs, numbers)
        changes.lost[neighbour], changes.gained[neighbour] = 0, 0
        changes.words[neighbour], changes.last_word[neighbour] = 0, -1
    for index in range(num_events):
        event = changes.events[index]
        add_occurrence(np.int64(changes.new_pair[event >> 32]), event & 0xFFFFFFFF, pairs)
    return first_new


@inlined
def merge_pair(best, records, changes, pairs, tokens, numbers):
    """Join a pair wherever it stands; returns the first of the new pairs."""
    left, right = np.int64(pairs.lefts[best]), np.int64(pairs.rights[best])
    symbol = add_token(left, right, tokens, numbers)
    num_touched, num_events = np.int64(0), np.int64(0)
    first, last = pairs.firsts[best], pairs.firsts[best] + pairs.lengths[best]
    for index in range(first, last):
        if index + _AHEAD < last:
            prefetch(records, np.int64(pairs.pool[index + _AHEAD]) << 2)
        num_touched, num_events = join_in_word(
            records, np.int64(pairs.pool[index]), left, right, symbol, changes, num_touched, num_events, numbers
        )
    first_new = enter_changes(left, right, symbol, changes, num_touched, num_events, pairs, numbers)
    pairs.counts[best] = 0
    return first_new


@inlined
def open_bundle(bundle):
    """Return (records, Tokens, Pairs, Heap, Neighbours, numbers) from the bundle that MergeLearner makes."""
    i32, i64, u64, u8 = np.int32, np.int64, np.uint64, np.uint8
    tokens = Tokens(view(bundle, 1, u64), view(bundle, 2, i64), view(bundle, 3, i32), view(bundle, 4, u8))
    pairs = Pairs(
        view(bundle, 5, i32),
        view(bundle, 6, i32),
        view(bundle, 7, i64),
        view(bundle, 8, i64),
        view(bundle, 9, i32),
        view(bundle, 10, u8),
        view(bundle, 11, i32),
        view(bundle, 12, u64),
        view(bundle, 13, i32),
    )
    heap = Heap(view(bundle, 14, i64), view(bundle, 15, i32))
    changes = Neighbours(
        view(bundle, 16, i64),
        view(bundle, 17, i64),
        view(bundle, 18, i32),
        view(bundle, 19, i64),
        view(bundle, 20, i32),
        view(bundle, 21, i32),
        view(bundle, 22, i64),
    )
    return view(bundle, 0, i32), tokens, pairs, heap, changes, view(bundle, 23, i64)


@kernel
def count_byte_pairs(bundle):
    """Enter the pairs of single bytes, with their counts and words; the bytes are tokens already."""
    records, _, pairs, _, _, numbers = open_bundle(bundle)
    counts = np.zeros(NUM_BYTES * NUM_BYTES, np.int64)
    words = np.zeros(NUM_BYTES * NUM_BYTES, np.int32)
    numbers_of_pairs = np.zeros(NUM_BYTES * NUM_BYTES, np.int32)
    last_word = np.full(NUM_BYTES * NUM_BYTES, -1, np.int64)
    for is_second_round in (False, True):
        last_word[:] = -1
        place = np.int64(0)
        while place < records.size:
            length, count = np.int64(records[place + 2]), count_of(records, place)
            for index in range(place + HEADER, place + HEADER + length - 1):
                code = np.int64(records[index]) * NUM_BYTES + np.int64(records[index + 1])
                is_new = last_word[code] != place
                last_word[code] = place
                if is_second_round:
                    if is_new:
                        add_occurrence(np.int64(numbers_of_pairs[code]), place, pairs)
                else:
                    counts[code] += count
                    words[code] += is_new
            place += HEADER + length
        if not is_second_round:
            for code in range(NUM_BYTES * NUM_BYTES):
                if counts[code] > 0:
                    left, right = code // NUM_BYTES, code % NUM_BYTES
                    numbers_of_pairs[code] = add_pair(left, right, counts[code], words[code], pairs, numbers)


@kernel
def rehash_pairs(bundle, slots, slot_pairs):
    """Enter all pairs into a larger, empty hash table."""
    _, _, pairs, _, _, numbers = open_bundle(bundle)
    for pair in range(numbers[NUM_PAIRS]):
        left, right = np.int64(pairs.lefts[pair]), np.int64(pairs.rights[pair])
        slot = find_slot(slots, left, right)
        slots[slot] = ((np.uint64(left) << _ID_SHIFT) | np.uint64(right)) + _ONE
        slot_pairs[slot] = pair


@kernel
def learn_merges(bundle, num_merges, merges):
    """Learn merges until there are `num_merges`, no pair is left, or an array wants to grow.

    merges: int32 [num_merges or more, 2], set to the symbols of each.
    Returns GOAL_REACHED, NO_PAIR_LEFT or WANTS_ROOM.
    """
    records, tokens, pairs, heap, changes, numbers = open_bundle(bundle)
    while numbers[NUM_MERGES] < num_merges:
        most_new = numbers[NUM_PAIRS] + 2 * (numbers[NUM_TOKENS] + 1)
        if most_new > pairs.lefts.size or 2 * most_new > pairs.slots.size:
            return WANTS_ROOM
        if numbers[TOKEN_BYTES_USED] + 2 * numbers[LONGEST_TOKEN] > tokens.text.size:
            return WANTS_ROOM
        best = pop_best(heap, numbers, pairs, tokens)
        if best < 0:
            return NO_PAIR_LEFT
        merges[numbers[NUM_MERGES], 0], merges[numbers[NUM_MERGES], 1] = pairs.lefts[best], pairs.rights[best]
        numbers[NUM_MERGES] += 1
        first_new = merge_pair(best, records, changes, pairs, tokens, numbers)
        for pair in range(first_new, numbers[NUM_PAIRS]):
            if pairs.counts[pair] >= numbers[THRESHOLD]:
                push(heap, numbers, pair, pairs, tokens)
    return GOAL_REACHED
