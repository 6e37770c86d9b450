"""Which characters are letters, numbers or spaces: one table, frozen, so that ids never depend on what is installed.

unicode_classes.json lists the code points of Unicode 16.0, as inclusive ranges: the general categories L and N, and
the property White_Space. It is the version that Hugging Face's tokenizers 0.23 and tiktoken 0.14 were built with, code
point for code point; the `regex` module of today knows 17,144 letters more, and other ids would come out.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

CODE_POINTS = 0x110000
CLASSES = ("letters", "numbers", "spaces")

# One ASCII character of each class that no pattern mentions by name.
_STAND_INS = {"letters": "a", "numbers": "0", "spaces": "\t"}
_OTHER_STAND_IN = "!"


@cache
def class_ranges() -> dict[str, list[tuple[int, int]]]:
    """Return the inclusive ranges of code points of each class, in order."""
    table = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {name: [(first, last) for first, last in table[name]] for name in CLASSES}


@cache
def class_bits() -> np.ndarray:
    """Return the classes as bits: uint64 [4 * CODE_POINTS / 64].

    Four words belong to 64 code points: bit i of the first says whether the i-th is a letter, of the second whether a
    number, of the third whether a space; the fourth is unused, so that the four never straddle two cache lines.
    """
    bits = np.zeros((CODE_POINTS // 64, 4, 64), dtype=bool)
    for column, name in enumerate(CLASSES):
        members = np.zeros(CODE_POINTS, dtype=bool)
        for first, last in class_ranges()[name]:
            members[first : last + 1] = True
        bits[:, column] = members.reshape(-1, 64)
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64).reshape(-1)


class _StandIns(dict[int, str]):
    """Map code points to their ASCII stand-ins, found out as they occur."""

    def __missing__(self, code: int) -> str:
        row, bit = (code >> 6) * 4, code & 63
        stand_in = _OTHER_STAND_IN
        for column, name in enumerate(CLASSES):
            if int(class_bits()[row + column]) >> bit & 1:
                stand_in = _STAND_INS[name]
        self[code] = stand_in
        return stand_in


_stand_ins = _StandIns({code: chr(code) for code in range(128)})


def to_ascii_classes(text: str) -> str:
    """Replace each non-ASCII character by an ASCII one of its class, so that ASCII patterns apply; same length."""
    return text if text.isascii() else text.translate(_stand_ins)
