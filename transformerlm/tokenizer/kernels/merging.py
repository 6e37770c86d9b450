"""Merge the bytes of one word into token ids, the pair of lowest rank first: what ../merging.py does, compiled.

byte_ranks, uint32 [65536]     rank of a pair of single bytes, by first * 256 + second; NO_RANK if never merged
pair_slots, uint64 [slots]     hash table of all pairs of token ids: left << 43 | right << 22 | rank; 0 is empty
merged_ids, uint32 [merges]    the token that a merge makes, by its rank
byte_ids, uint32 [256]         the token of each single byte
"""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.memory import (
    leading_zeros,
    load8,
    load32,
    load64,
    minimum16,
    store32,
    trailing_zeros,
)
from transformerlm.tokenizer.kernels.pretokens import ALL, ONE, ZERO
from transformerlm.utils.jit import inlined, kernel

ID_BITS = 21
RANK_BITS = 22
NO_RANK = (1 << RANK_BITS) - 1
LONGEST_MASKED_WORD = 63
MASKED_CAPACITY = 64
"""uint32 of `symbols` and `ranks` that merge_masked writes to."""
WINDOW_BYTES = 1 << 16
"""Of longer words so much is merged at a time; 28 bytes of memory for each."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_ID_SHIFT, _RANK_SHIFT, _RANK_MASK = np.uint64(ID_BITS), np.uint64(RANK_BITS), np.uint64(NO_RANK)


class MergeTables(NamedTuple):
    """The merges of a vocabulary, laid out for the kernels."""

    byte_ranks: np.ndarray
    pair_slots: np.ndarray
    merged_ids: np.ndarray
    byte_ids: np.ndarray


@inlined
def rank_of(pair_slots, left, right):
    """Return the rank of a pair of token ids (uint64), or NO_RANK."""
    mask = pair_slots.size - 1
    pair = (left << _ID_SHIFT) | right
    slot = np.int64((pair * _MULTIPLIER) >> _HALF) & mask
    while True:
        entry = load64(pair_slots, slot << 3)
        if entry == ZERO:
            return NO_RANK
        if entry >> _RANK_SHIFT == pair:
            return np.int64(entry & _RANK_MASK)
        slot = (slot + 1) & mask


@kernel
def fill_pair_slots(pair_slots, lefts, rights):
    """Enter the pairs lefts[rank], rights[rank], uint64 [merges], into an empty table of more than as many slots."""
    mask = pair_slots.size - 1
    for rank in range(lefts.size):
        pair = (lefts[rank] << _ID_SHIFT) | rights[rank]
        slot = np.int64((pair * _MULTIPLIER) >> _HALF) & mask
        while pair_slots[slot] != ZERO:
            slot = (slot + 1) & mask
        pair_slots[slot] = (pair << _RANK_SHIFT) | np.uint64(rank)


@inlined
def _lowest_rank(ranks, length):
    """Return the lowest of `length` ranks, and where it first stands."""
    rank, left = minimum16(ranks, 0)
    for first in range(16, length, 16):
        candidate, place = minimum16(ranks, first << 2)
        if candidate < rank:
            rank, left = candidate, first + place
    return rank, left


@inlined
def merge_masked(text, position, length, tables, symbols, ranks):
    """Merge a word of at most 63 bytes; returns the number of ids, which lie in symbols[: n].

    A pair is known by the place of its left symbol; merging empties the place of the right one, which a bit in `alive`
    remembers. So nothing moves, and the best of sixteen ranks takes an instruction or a few.
    """
    alive = (ONE << np.uint64(length)) - ONE
    for index in range((length + 15) & ~15):
        store32(ranks, index << 2, np.uint64(NO_RANK))
    before = load8(text, position)
    store32(symbols, 0, np.uint64(tables.byte_ids[np.int64(before)]))
    for index in range(1, length):
        byte = load8(text, position + index)
        store32(symbols, index << 2, np.uint64(tables.byte_ids[np.int64(byte)]))
        pair = np.int64((before << np.uint64(8)) | byte)
        store32(ranks, (index - 1) << 2, load32(tables.byte_ranks, pair << 2))
        before = byte
    while True:
        rank, left = _lowest_rank(ranks, length)
        if rank == NO_RANK:
            break
        token = np.uint64(tables.merged_ids[rank])
        behind = alive & (ALL << np.uint64(left + 1))
        right = trailing_zeros(behind)
        alive &= ~(ONE << np.uint64(right))
        behind &= behind - ONE
        store32(ranks, right << 2, np.uint64(NO_RANK))
        store32(symbols, left << 2, token)
        after = NO_RANK
        if behind != ZERO:
            after = rank_of(tables.pair_slots, token, load32(symbols, trailing_zeros(behind) << 2))
        store32(ranks, left << 2, np.uint64(after))
        ahead = alive & ((ONE << np.uint64(left)) - ONE)
        if ahead != ZERO:
            previous = 63 - leading_zeros(ahead)
            new_rank = rank_of(tables.pair_slots, load32(symbols, previous << 2), token)
            store32(ranks, previous << 2, np.uint64(new_rank))
    count = 0
    while alive != ZERO:
        store32(symbols, count << 2, load32(symbols, trailing_zeros(alive) << 2))
        alive &= alive - ONE
        count += 1
    return count


@inlined
def _sift_down(heap, count, place, entry):
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = entry


@inlined
def _sift_up(heap, place, entry):
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent] <= entry:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = entry


@inlined
def _heap_entry(rank, place):
    """Order by rank, then from left to right."""
    return (np.uint64(rank) << _HALF) | np.uint64(place)


class Window(NamedTuple):
    """A stretch of a long word while it is merged, tokens linked by the places where they begin."""

    symbols: np.ndarray
    """int32 [bytes]: the token that begins here, or -1."""
    following: np.ndarray
    """int32 [bytes + 1]: where the next token begins."""
    previous: np.ndarray
    """int32 [bytes + 1]: where the token before begins, or -1."""
    heap: np.ndarray
    """uint64 [2 * bytes]: a pair for each byte at first, and two new ones at most for each merge but the one it was."""


@inlined
def _new_window(size):
    return Window(
        np.empty(size, np.int32),
        np.empty(size + 1, np.int32),
        np.empty(size + 1, np.int32),
        np.empty(2 * size, np.uint64),
    )


@inlined
def _first_heap(text, position, length, byte_ranks, heap):
    """Make a heap of the pairs of single bytes that merge; returns their number."""
    count = 0
    for index in range(length - 1):
        pair = (np.int64(text[position + index]) << 8) | np.int64(text[position + index + 1])
        if byte_ranks[pair] != NO_RANK:
            heap[count] = _heap_entry(byte_ranks[pair], index)
            count += 1
    for place in range(count // 2 - 1, -1, -1):
        _sift_down(heap, count, place, heap[place])
    return count


@kernel
def _merge_window(text, position, length, tables, window):
    """Merge text[position : position + length] in n log n, as if it were a word.

    A heap gives the best pair, a linked list its neighbours. Pairs that vanish stay in the heap, and are known by no
    longer having their rank when they come up.
    """
    symbols, following, previous, heap = window.symbols, window.following, window.previous, window.heap
    for index in range(length):
        symbols[index] = tables.byte_ids[text[position + index]]
        following[index], previous[index] = index + 1, index - 1
    count = _first_heap(text, position, length, tables.byte_ranks, heap)
    while count > 0:
        entry = heap[0]
        count -= 1
        _sift_down(heap, count, 0, heap[count])
        left, rank = np.int64(entry & np.uint64(0xFFFFFFFF)), np.int64(entry >> _HALF)
        right = np.int64(following[left])
        if symbols[left] < 0 or right >= length:
            continue
        if rank_of(tables.pair_slots, np.uint64(symbols[left]), np.uint64(symbols[right])) != rank:
            continue
        symbols[left], symbols[right] = tables.merged_ids[rank], -1
        following[left] = following[right]
        previous[following[left]] = left
        for place in (np.int64(previous[left]), left):
            if place < 0 or following[place] >= length:
                continue
            after = symbols[following[place]]
            new_rank = rank_of(tables.pair_slots, np.uint64(symbols[place]), np.uint64(after))
            if new_rank != NO_RANK:
                _sift_up(heap, count, _heap_entry(new_rank, place))
                count += 1


@inlined
def _common_token(window, shift, length, following_window, following_length):
    """Return where in the following window, which begins at `shift` of this one, both have the same token; or -1."""
    place, other = shift, np.int64(0)
    while place < length and other < following_length:
        if place - shift < other:
            place = np.int64(window.following[place])
        elif other < place - shift:
            other = np.int64(following_window.following[other])
        elif window.symbols[place] == following_window.symbols[other]:
            return other
        else:
            place = np.int64(window.following[place])
    return np.int64(-1)


@inlined
def _append_tokens(window, place, end, out, out_at):
    """Append the tokens of window[place : end]; returns the end of `out`."""
    while place < end:
        out[out_at] = window.symbols[place]
        out_at += 1
        place = np.int64(window.following[place])
    return out_at


@kernel
def merge_long(text, position, length, tables, window_bytes, out, out_at):
    """Append the ids of a word of any length, in memory that depends on window_bytes only; returns the end of `out`.

    Stretches that overlap are merged as if each were a word. Where two of them have a token t in common, what the
    first has up to t and what the second has behind it are the ids of both together: the first merge that crossed an
    end of t would be the best pair of the stretch it lies in too, and there it was not made. Where none is in common,
    the window is doubled.
    """
    size = min(length, window_bytes)
    window, following_window = _new_window(size), _new_window(size if size < length else 0)
    begin, first, held = np.int64(0), np.int64(0), np.int64(size)
    _merge_window(text, position, held, tables, window)
    while begin + held < length:
        shift = np.int64(0)
        while shift < held - held // 8:
            shift = np.int64(window.following[shift])
        following_held = min(size, length - begin - shift)
        _merge_window(text, position + begin + shift, following_held, tables, following_window)
        common = _common_token(window, shift, held, following_window, following_held)
        if common >= 0:
            out_at = _append_tokens(window, first, shift + common, out, out_at)
            window, following_window = following_window, window
            begin, first, held = begin + shift, common, following_held
        else:
            begin, first, size = begin + first, np.int64(0), 2 * size
            window, following_window = _new_window(size), _new_window(size)
            held = min(size, length - begin)
            _merge_window(text, position + begin, held, tables, window)
    return _append_tokens(window, first, held, out, out_at)
