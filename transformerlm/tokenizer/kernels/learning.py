"""The merge loop: join the most frequent pair everywhere, bring the counts up to date, and again.

What ../trainer.py does, compiled. The distinct words lie behind each other in one array (see counting.py), so that
touching a word touches one place in memory. Every pair knows its count and in which words it may stand. A merge
visits those words only; what it takes from and adds to its neighbours' counts is summed per neighbour first, and
entered into the table of pairs once.

All arrays are sized for the worst case by `MergeLearner` in ../fast_learning.py: each merge in a word makes it one
symbol shorter, so with S symbols in all there are at most S merges in words, each of which makes two pairs occur.
"""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.counting import HEADER
from transformerlm.tokenizer.kernels.memory import prefetch, view
from transformerlm.tokenizer.kernels.pairs import (
    LONGEST_TOKEN,
    NUM_MERGES,
    NUM_PAIRS,
    NUM_TOKENS,
    SAVED,
    THRESHOLD,
    TOKEN_BYTES_USED,
    Heap,
    Pairs,
    Tokens,
    add_occurrence,
    add_pair,
    add_token,
    fill_slots,
    find_slot,
    pop_best,
    push,
)
from transformerlm.utils.jit import inlined, kernel

GOAL_REACHED, NO_PAIR_LEFT, WANTS_ROOM = range(3)
NUM_BYTES = 256
_AHEAD = 8  # words fetched into the cache before they are visited


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
    fill_slots(pairs, numbers[NUM_PAIRS], slots, slot_pairs)


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
