"""Cut a stream of bytes into blocks that can be tokenized one by one with the same result as the whole.

A text that does not fit memory arrives in pieces that may end anywhere, even inside a character. `cut_blocks` gathers
them and cuts again where no pretoken and no special token reaches across (see Pretokenizer.last_stable_cut). Blocks
are numpy buffers with room behind the text, as the compiled kernels want them; the Python backend decodes them.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder

PADDING = 128
"""Bytes behind a text that may be read: more than the widest read of a kernel, 64 bytes that begin at its last byte."""
BLOCK_BYTES = 2**20
"""Large enough that what is done once per block does not count, small enough for a processor's own cache."""

_FIRST_WINDOW_BYTES = 2**11
_LONGEST_CHARACTER_BYTES = 4

ReadInto = Callable[[memoryview], int]
"""Fill a writable buffer with the next bytes and return how many; 0 at the end."""


@dataclass(frozen=True, slots=True)
class Block:
    """A text of its own."""

    buffer: np.ndarray
    """uint8 [size + PADDING, or more]."""
    size: int
    start: int = 0
    """Where its first byte stood in the stream."""

    @property
    def view(self) -> memoryview:
        """Return the bytes of the text, not copied."""
        return memoryview(self.buffer)[: self.size]

    def decode(self) -> str:
        """Return the text; raises ValueError saying which byte of the stream is not UTF-8."""
        try:
            return str(self.view, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {self.start + error.start} is not UTF-8 ({error.reason})") from None


def new_buffer(size: int) -> np.ndarray:
    """Return an uninitialised buffer for a text of so many bytes."""
    return np.empty(size + PADDING, np.uint8)


def block_of(text: bytes | memoryview) -> Block:
    """Copy bytes into a block."""
    source = np.frombuffer(text, np.uint8)
    buffer = new_buffer(len(source))
    buffer[: len(source)] = source
    _end_text(buffer, len(source))
    return Block(buffer, len(source))


def cut_blocks(
    read_into: ReadInto, pretokenizer: Pretokenizer, specials: SpecialTokenFinder, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the text behind `read_into` in blocks of up to `block_bytes`, or more where it has no place to cut.

    Memory is bounded by the block size and the longest stretch without such a place. Text whose pattern is a regular
    expression of the user's own is cut only at special tokens.
    """
    buffer, filled, start = new_buffer(block_bytes), 0, 0
    while True:
        count = read_into(memoryview(buffer)[filled:-PADDING])
        filled += count
        if count == 0:
            _end_text(buffer, filled)
            if filled:
                yield Block(buffer, filled, start)
            return
        if filled < len(buffer) - PADDING:
            continue
        cut = _find_cut(buffer, filled, pretokenizer, specials)
        rest = filled - cut
        # Twice the rest at least: looking again only then keeps the work linear where there is nowhere to cut.
        following = new_buffer(max(block_bytes, 2 * rest))
        following[:rest] = buffer[cut:filled]
        if cut:
            yield Block(buffer, cut, start)
        buffer, filled, start = following, rest, start + cut


def file_blocks(
    path: Path, pretokenizer: Pretokenizer, specials: SpecialTokenFinder, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the blocks of a file; raises ValueError if it cannot be opened."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with file:
        yield from cut_blocks(file.readinto, pretokenizer, specials, block_bytes)


def reader_of(chunks: Iterable[bytes]) -> ReadInto:
    """Return what reads an iterable of bytes piece by piece."""
    remaining = iter(chunks)
    held = memoryview(b"")

    def read_into(target: memoryview) -> int:
        nonlocal held
        while not held:
            chunk = next(remaining, None)
            if chunk is None:
                return 0
            held = memoryview(chunk)
        count = min(len(held), len(target))
        target[:count], held = held[:count], held[count:]
        return count

    return read_into


def _end_text(buffer: np.ndarray, size: int) -> None:
    """Let nothing behind a text look like the rest of its last character."""
    buffer[size : size + _LONGEST_CHARACTER_BYTES] = 0


def _find_cut(buffer: np.ndarray, filled: int, pretokenizer: Pretokenizer, specials: SpecialTokenFinder) -> int:
    """Return the byte offset of a place to cut, as far behind as can be found cheaply, or 0."""
    window = _FIRST_WINDOW_BYTES
    while True:
        begin = max(0, filled - window)
        while begin and buffer[begin] & 0xC0 == 0x80:  # not inside a character
            begin -= 1
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        tail = decoder.decode(bytes(memoryview(buffer)[begin:filled]))  # but for an unfinished character at the end
        undecided = specials.first_undecided(tail)
        cut = _last_cut(tail, undecided, pretokenizer, specials)
        if cut == 0 and begin == 0:
            cut = specials.last_decided_end(tail, undecided)
        if cut or begin == 0:
            return begin + len(tail[:cut].encode("utf-8", "surrogateescape")) if cut else 0
        window *= 16


def _last_cut(text: str, end: int, pretokenizer: Pretokenizer, specials: SpecialTokenFinder) -> int:
    """Return the last stable place in a text, up to `end`, that lies inside no special token, or 0."""
    while True:
        cut = pretokenizer.last_stable_cut(text, end)
        if not cut or not specials.may_reach_across(text, cut):
            return cut
        end = cut - 1
