"""Find where pretokens start, 64 bytes at a time, by arithmetic on bit masks; README.md has a worked example.

The pattern is GPT-2's (see tokenizer/pretokenize.py). What it says about one character depends on that character's
class, its neighbours' classes, and whether an apostrophe opens a contraction; so three masks per block (letters,
numbers, spaces), shifted by one place, tell where classes change, and that is nearly all there is to it.
"""

from typing import NamedTuple

import numpy as np

from transformerlm.tokenizer.kernels.memory import (
    classify_ascii,
    count_ones,
    find_byte,
    load8,
    load64,
    store32,
    trailing_zeros,
)
from transformerlm.utils.jit import inlined, kernel

BATCH = 1024
"""Starts found by one call, at the most 63 more."""
AT_ONCE = 24
"""Starts that `emit` writes without asking how many there are: few blocks of text have more."""
STARTS_CAPACITY = BATCH + 64 + AT_ONCE
"""Room that `find_starts` may write to: a full block behind the last but one start, and what `emit` writes too much."""

WORDS_PER_CLASS_ROW = 4  # of class_bits: letters, numbers, spaces, and one unused so that rows do not straddle lines

ZERO, ONE, ALL = np.uint64(0), np.uint64(1), ~np.uint64(0)
LAST = np.uint64(63)
OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3


class Block(NamedTuple):
    """The classes of 64 bytes as uint64 masks, bit i for byte i. All bytes of a character carry its class."""

    letters: np.uint64
    numbers: np.uint64
    spaces: np.uint64
    blanks: np.uint64
    """U+0020 only."""
    apostrophes: np.uint64
    spaces1: np.uint64
    """First bytes of spaces that take one byte in UTF-8."""
    spaces2: np.uint64
    spaces3: np.uint64
    overhang: np.int64
    """The last character's bytes in the next block (0 to 3), plus 8 times its class."""
    invalid: np.uint64
    """Bytes that are not UTF-8; they count as other characters of one byte."""


class Edge(NamedTuple):
    """The classes of the byte before a block, each 0 or 1."""

    letter: np.uint64
    number: np.uint64
    other: np.uint64
    space: np.uint64
    blank: np.uint64


@inlined
def decode_character(text, position):
    """Decode one non-ASCII character: (code point, bytes); (-1, 1) for what is not UTF-8 (Unicode 17, table 3-7)."""
    first, second = np.int64(load8(text, position)), np.int64(load8(text, position + 1))
    if first < 0xC2 or first > 0xF4 or (second & 0xC0) != 0x80:
        return -1, 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (second & 0x3F), 2
    third = np.int64(load8(text, position + 2))
    if (third & 0xC0) != 0x80:
        return -1, 1
    if first < 0xF0:
        code = ((first & 0xF) << 12) | ((second & 0x3F) << 6) | (third & 0x3F)
        is_valid = code >= 0x800 and not 0xD800 <= code <= 0xDFFF
        return (code, 3) if is_valid else (-1, 1)
    fourth = np.int64(load8(text, position + 3))
    if (fourth & 0xC0) != 0x80:
        return -1, 1
    code = ((first & 7) << 18) | ((second & 0x3F) << 12) | ((third & 0x3F) << 6) | (fourth & 0x3F)
    return (code, 4) if 0x10000 <= code <= 0x10FFFF else (-1, 1)


@inlined
def class_of(code, class_bits):
    """Look up the class of a code point; -1 is OTHER."""
    if code < 0:
        return OTHER
    row = (code >> 6) * (8 * WORDS_PER_CLASS_ROW)
    bit = np.uint64(code & 63)
    if (load64(class_bits, row) >> bit) & ONE:
        return LETTER
    if (load64(class_bits, row + 8) >> bit) & ONE:
        return NUMBER
    return SPACE if (load64(class_bits, row + 16) >> bit) & ONE else OTHER


@kernel
def fold_characters(text, position, letters, numbers, spaces, non_ascii, class_bits, overhang):
    """Add the non-ASCII characters of a block to its masks, and what the block before left over.

    Returns (letters, numbers, spaces, spaces2, spaces3, overhang, invalid).
    """
    spaces2, spaces3, invalid = ZERO, ZERO, ZERO
    width, kind, index = overhang & 7, overhang >> 3, 0
    overhang = 0
    while True:
        # The first round serves the character that began in the block before.
        mask = ((ONE << np.uint64(width)) - ONE) << np.uint64(index)
        if kind == LETTER:
            letters |= mask
        elif kind == NUMBER:
            numbers |= mask
        elif kind == SPACE:
            spaces |= mask
        index += width
        if index >= 64:
            return letters, numbers, spaces, spaces2, spaces3, ((index - 64) | (kind << 3)), invalid
        non_ascii &= ALL << np.uint64(index)
        if non_ascii == ZERO:
            return letters, numbers, spaces, spaces2, spaces3, 0, invalid
        index = trailing_zeros(non_ascii)
        code, width = decode_character(text, position + index)
        kind = class_of(code, class_bits)
        if code < 0:
            invalid |= ONE << np.uint64(index)
        elif kind == SPACE:
            if width == 2:
                spaces2 |= ONE << np.uint64(index)
            else:
                spaces3 |= ONE << np.uint64(index)


@inlined
def classify(text, position, end, class_bits, overhang):
    """Return the Block at a position; what lies behind the end counts as spaces."""
    letters, numbers, spaces, blanks, apostrophes, non_ascii = classify_ascii(text, position)
    spaces1, spaces2, spaces3, invalid = spaces, ZERO, ZERO, ZERO
    if non_ascii != ZERO or overhang != 0:
        letters, numbers, spaces, spaces2, spaces3, overhang, invalid = fold_characters(
            text, position, letters, numbers, spaces, non_ascii, class_bits, overhang
        )
    if end - position < 64:
        inside = (ONE << np.uint64(end - position)) - ONE
        letters, numbers, spaces = letters & inside, numbers & inside, spaces | ~inside
        blanks, apostrophes, spaces1 = blanks & inside, apostrophes & inside, spaces1 & inside
        spaces2, spaces3, invalid = spaces2 & inside, spaces3 & inside, invalid & inside
    return Block(letters, numbers, spaces, blanks, apostrophes, spaces1, spaces2, spaces3, overhang, invalid)


@inlined
def mark_starts(block, before, spaces_ahead):
    """Return the mask of bytes at which a pretoken starts, but for contractions.

    before: the Edge left of the block; spaces_ahead: the spaces of the next block.
    """
    others = ~(block.letters | block.numbers | block.spaces)
    after_space = (block.spaces << ONE) | before.space
    after_blank = (block.blanks << ONE) | before.blank
    runs = (
        (block.letters & ~((block.letters << ONE) | before.letter))
        | (block.numbers & ~((block.numbers << ONE) | before.number))
        | (others & ~((others << ONE) | before.other))
    )
    # A run of letters, numbers or others starts a pretoken, unless a blank stands before it: then the blank did.
    starts = (runs & ~after_blank) | (block.spaces & ~after_space)
    # The last space of several starts anew if something visible follows.
    starts |= block.spaces1 & after_space & ~((block.spaces >> ONE) | (spaces_ahead << LAST))
    if (block.spaces2 | block.spaces3) != ZERO:
        two, three = np.uint64(2), np.uint64(3)
        starts |= block.spaces2 & after_space & ~((block.spaces >> two) | (spaces_ahead << (LAST - ONE)))
        starts |= block.spaces3 & after_space & ~((block.spaces >> three) | (spaces_ahead << (LAST - two)))
    return starts


@inlined
def contraction_width(text, position, end):
    """Return the bytes of the contraction that an apostrophe at a position opens: 2, 3, or 0 for none."""
    if position + 1 >= end:
        return 0
    first = load8(text, position + 1)
    if first == ord("s") or first == ord("d") or first == ord("m") or first == ord("t"):
        return 2
    if position + 2 >= end:
        return 0
    second = load8(text, position + 2)
    if (first == ord("l") and second == ord("l")) or (second == ord("e") and (first == ord("v") or first == ord("r"))):
        return 3
    return 0


@inlined
def patch_contractions(text, position, end, apostrophes, starts):
    """Let contractions be pretokens: their letters do not start one, what follows does.

    apostrophes: the mask of those that start a pretoken.  Returns (starts, cleared, forced): the mask, and the changes
    that fall into the next block.
    """
    cleared, forced = ZERO, ZERO
    while apostrophes != ZERO:
        index = trailing_zeros(apostrophes)
        apostrophes &= apostrophes - ONE
        width = contraction_width(text, position + index, end)
        if width == 0:
            continue
        if index + 1 < 64:
            starts &= ~(ONE << np.uint64(index + 1))
        else:
            cleared |= ONE
        if index + width < 64:
            starts |= ONE << np.uint64(index + width)
        else:
            forced |= ONE << np.uint64(index + width - 64)
    return starts, cleared, forced


@inlined
def emit(starts, count, offset, mask):
    """Append offset + i for every set bit i; writes at least AT_ONCE entries, though the last may be meant for nobody.

    A fixed number of rounds costs no mispredicted branch.
    """
    total = count_ones(mask)
    for index in range(AT_ONCE):
        store32(starts, (count + index) << 2, np.uint64(offset + trailing_zeros(mask | (ONE << LAST))))
        mask &= mask - ONE
    for index in range(AT_ONCE, total):
        store32(starts, (count + index) << 2, np.uint64(offset + trailing_zeros(mask)))
        mask &= mask - ONE
    return count + total


@kernel
def find_starts(text, begin, end, class_bits, starts, status):
    """Write the offsets from `begin` at which pretokens start, until there are BATCH of them or the text ends.

    text: uint8, PADDING bytes longer than `end`.  begin: where a pretoken starts; the pattern never looks back, so any
    such place does as well as the first.  class_bits: see classes.py.  starts: uint32 [STARTS_CAPACITY].
    status: int64 [1], set to the place of the first byte that is not UTF-8, if there is one.
    Returns (words, next): the offsets written, of `words` pretokens and the end of the last one; `next` is where to
    go on, or `end`.
    """
    count, position, forced, cleared = 0, begin, ZERO, ZERO
    before = Edge(ZERO, ZERO, ZERO, ZERO, ZERO)
    block = classify(text, begin, end, class_bits, 0)
    while True:
        ahead = block
        if position + 64 < end:
            ahead = classify(text, position + 64, end, class_bits, block.overhang)
            spaces_ahead, inside = ahead.spaces, ALL
        else:
            spaces_ahead = ALL
            inside = ALL if end - position >= 64 else (ONE << np.uint64(end - position)) - ONE
        if block.invalid != ZERO and status[0] < 0:
            status[0] = position + trailing_zeros(block.invalid)
        others = ~(block.letters | block.numbers | block.spaces)
        mask = (mark_starts(block, before, spaces_ahead) & ~cleared) | forced
        apostrophes = block.apostrophes & ~((others << ONE) | before.other | (block.blanks << ONE) | before.blank)
        mask, cleared, forced = patch_contractions(text, position, end, apostrophes, mask)
        count = emit(starts, count, position - begin, mask & inside)
        before = Edge(
            block.letters >> LAST, block.numbers >> LAST, others >> LAST, block.spaces >> LAST, block.blanks >> LAST
        )
        block = ahead
        position += 64
        if position >= end:
            store32(starts, count << 2, np.uint64(end - begin))
            return count, end
        if count >= BATCH:
            return count - 1, begin + np.int64(starts[count - 1])


@kernel
def find_pairs(text, end, first, second, places):
    """Find where two bytes (uint8) stand side by side in text[: end]: where a special token may begin.

    text: uint8, PADDING bytes longer.  places: int64, filled as far as it goes.  Returns how many places there are.
    """
    found = 0
    for position in range(0, end, 64):
        mask = find_byte(text, position, first) & find_byte(text, position + 1, second)
        while mask != ZERO:
            if found < places.size:
                places[found] = position + trailing_zeros(mask)
            found += 1
            mask &= mask - ONE
    return found
