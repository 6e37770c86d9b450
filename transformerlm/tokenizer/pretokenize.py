"""Cut text into pretokens, the word-like pieces that merges never cross.

    "I'm here<|endoftext|>"  ->  "I" "'m" " here" | <|endoftext|>

Two cuts, in this order: special tokens are taken out whole (leftmost first, the longest where several start), then
what lies between them is cut by a regular expression, each stretch as if it were a text of its own.

What counts as a letter is decided by the frozen table of unicode_classes.py for the two patterns of GPT-2's kind, and
by the Unicode tables of the installed `regex` module for all others.
"""

import re
from collections.abc import Collection, Iterator, Sequence

import regex

from transformerlm.tokenizer.unicode_classes import to_ascii_classes

PATTERNS = {
    # Contractions; then letters, numbers and the rest, each with the space before it; then the spaces left over, of
    # which the last one before a word belongs to that word. Radford et al. 2019, as rewritten in tiktoken.
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    # GPT-4: contractions in either case, numbers in threes, line ends apart (tiktoken, cl100k_base).
    "cl100k": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
        r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
    ),
    # GPT-4o: words also end where capitals follow small letters, and keep their contractions (tiktoken, o200k_base).
    "o200k": (
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    ),
    # That of GPT-2 with every digit by itself, and no space before one (SmolLM).
    "gpt2_digits": (r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""),
}

# The patterns of GPT-2's kind for text in which every other character has an ASCII stand-in of its class.
_ON_CLASSES = {
    "gpt2": re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII),
    "gpt2_digits": re.compile(
        r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+(?=[0-9])|\s+(?!\S)|\s+", re.ASCII
    ),
}

# Two neighbouring characters between which a pattern cuts, whatever stands before and after them. In the patterns of
# GPT-2, a letter or digit is followed by no other character but an apostrophe, and nothing visible by a space; in the
# other two, marks may follow a letter, and line ends may follow anything. Nor does any pretoken before such a place
# depend on what comes after it. (?r) makes the search run from the right, so that it finds the last such place first.
_STABLE_NEIGHBOURS_GPT2 = regex.compile(r"(?ra)[A-Za-z0-9][^A-Za-z0-9']|\S\s")
_STABLE_NEIGHBOURS = regex.compile(r"(?r)[\p{L}\p{N}][^\p{L}\p{N}\p{M}']|\S[^\S\r\n]")


def resolve_pattern(pattern: str) -> str:
    """Return the name of a known pattern, or the regular expression itself.

    Raises ValueError for an unknown name and for an expression that does not compile.
    """
    for name, expression in PATTERNS.items():
        if pattern in (name, expression):
            return name
    if re.fullmatch(r"[\w.-]*", pattern):
        raise ValueError(f"unknown pattern {pattern!r}; choose {', '.join(PATTERNS)} or give a regular expression")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    return pattern


class Pretokenizer:
    """Cut ordinary text, without special tokens, into pretokens by a named pattern or a regular expression."""

    def __init__(self, pattern: str = "gpt2"):
        self.pattern = resolve_pattern(pattern)
        self._expression = regex.compile(PATTERNS.get(self.pattern, self.pattern))

    def split(self, text: str) -> list[str]:
        """Return the pretokens of a text; joined, they are the text."""
        if self.pattern in _ON_CLASSES:
            expression = _ON_CLASSES[self.pattern]
            if text.isascii():
                return expression.findall(text)
            return [text[slice(*match.span())] for match in expression.finditer(to_ascii_classes(text))]
        return self._expression.findall(text) if self.pattern in PATTERNS else self._split_keeping_gaps(text)

    def last_stable_cut(self, text: str, end: int) -> int:
        """Find the last place in (0, end] where the text can be cut without changing any pretoken, or return 0.

        How far a user's own expression looks ahead is unknown: for those there is never such a place.
        """
        if self.pattern not in PATTERNS:
            return 0
        # The right neighbour may stand at `end` itself.
        if self.pattern in _ON_CLASSES:
            neighbours = _STABLE_NEIGHBOURS_GPT2.search(to_ascii_classes(text[: end + 1]))
        else:
            neighbours = _STABLE_NEIGHBOURS.search(text, 0, end + 1)
        return neighbours.start() + 1 if neighbours else 0

    def _split_keeping_gaps(self, text: str) -> list[str]:
        """Split by a user's expression; what it does not match between two matches becomes a pretoken of its own."""
        pieces, end = [], 0
        for match in self._expression.finditer(text):
            pieces += [text[end : match.start()], match.group()]
            end = match.end()
        return [piece for piece in [*pieces, text[end:]] if piece]


class SpecialTokenFinder:
    """Find special tokens in text: leftmost first, and the longest of those that start at the same place."""

    def __init__(self, special_tokens: Collection[str]):
        # A regular expression takes the first alternative that fits, so the longest goes first.
        self._longest_first = sorted(special_tokens, key=len, reverse=True)
        self._expression = re.compile("|".join(map(re.escape, self._longest_first)))
        encoded = [special.encode() for special in self._longest_first]
        self._bytes_expression = re.compile(b"|".join(map(re.escape, encoded)))
        self.common_bytes = _common_prefix(encoded)
        """What all of them begin with; empty if there are none."""

    def segments(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield the text in order as (piece, is_special); no piece is empty."""
        end = 0
        for match in self._matches(text):
            if match.start() > end:
                yield text[end : match.start()], False
            yield match.group(), True
            end = match.end()
        if end < len(text):
            yield text[end:], False

    def find_in_bytes(self, text: bytes | memoryview) -> Iterator[tuple[int, int, str]]:
        """Yield (begin, end, special token) for UTF-8 bytes, in order; the same tokens as in the text."""
        if self._longest_first:
            for match in self._bytes_expression.finditer(text):
                yield match.start(), match.end(), str(match.group(), "utf-8")

    def match_bytes(self, text: bytes | memoryview, place: int) -> tuple[int, str] | None:
        """Return (end, special token) of the one that begins at a place in UTF-8 bytes, or None."""
        match = self._bytes_expression.match(text, place)
        return (match.end(), str(match.group(), "utf-8")) if match and self._longest_first else None

    def occur_in_bytes(self, text: bytes | memoryview) -> bool:
        """Tell whether UTF-8 bytes hold a special token."""
        return bool(self._longest_first) and self._bytes_expression.search(text) is not None

    def may_reach_across(self, text: str, cut: int) -> bool:
        """Tell whether a special token might stand across a place in the text."""
        return any(
            special in text[max(0, cut - len(special) + 1) : cut + len(special) - 1] for special in self._longest_first
        )

    def first_undecided(self, text: str) -> int:
        """Find where the first special token might start that more text could still complete or lengthen.

        Returns len(text) if no special token begins at the end of the text.
        """
        longest = len(self._longest_first[0]) if self._longest_first else 0
        for start in range(max(0, len(text) - longest + 1), len(text)):
            tail = text[start:]
            if any(special.startswith(tail) and special != tail for special in self._longest_first):
                return start
        return len(text)

    def last_decided_end(self, text: str, undecided: int) -> int:
        """Find the end of the last special token that starts before `undecided`, or 0."""
        end = 0
        for match in self._matches(text):
            if match.start() >= undecided:
                break
            end = match.end()
        return end

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        # With no special tokens the expression is empty and would match everywhere.
        return self._expression.finditer(text) if self._longest_first else iter(())


def _common_prefix(strings: Sequence[bytes]) -> bytes:
    first, last = min(strings, default=b""), max(strings, default=b"")
    length = next(
        (index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return first[:length]


def encode_utf8(text: str) -> bytes:
    """Return a text as UTF-8.

    Raises ValueError if it holds a lone surrogate, which has no such form.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which has no "
            "UTF-8 form; repair it with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None
