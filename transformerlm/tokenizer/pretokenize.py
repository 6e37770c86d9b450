"""Cut text into pretokens, the word-like pieces that merges never cross.

    "I'm here<|endoftext|>"  ->  "I" "'m" " here" | <|endoftext|>

Two cuts, in this order: special tokens are taken out whole (leftmost first, the longest where several start), then
what lies between them is cut by a regular expression, each stretch as if it were a text of its own. What counts as a
letter is decided by the Unicode tables of the installed `regex` module.

Text too long for memory comes in chunks, and a chunk may end anywhere, even inside a special token. `stable_blocks`
regroups chunks into blocks that can be cut one by one with the same result as the whole text.
"""

import re
from collections.abc import Collection, Iterable, Iterator

import regex

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
}

BLOCK_CHARACTERS = 2**16

# Two neighbouring characters between which all three patterns cut, whatever stands before and after them: no pretoken
# holds a letter or digit followed by anything but a letter, digit, mark or apostrophe, and none holds a visible
# character followed by a space (line ends may follow one). Nor does any pretoken before such a place depend on what
# comes after it. (?r) makes the search run from the right, so that it finds the last such place first.
_STABLE_NEIGHBOURS = regex.compile(r"(?r)[\p{L}\p{N}][^\p{L}\p{N}\p{M}']|\S[^\S\r\n]")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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
        pattern = resolve_pattern(pattern)
        self._is_known = pattern in PATTERNS
        self._expression = regex.compile(PATTERNS.get(pattern, pattern))

    def split(self, text: str) -> list[str]:
        """Return the pretokens of a text; joined, they are the text."""
        return self._expression.findall(text) if self._is_known else self._split_keeping_gaps(text)

    def last_stable_cut(self, text: str, start: int, end: int) -> int:
        """Find the last place in (start, end] where the text can be cut without changing any pretoken.

        Returns `start` if there is none. How far a user's own expression looks ahead is unknown: for those there is
        never a stable place.
        """
        if not self._is_known:
            return start
        # The right neighbour may stand at `end` itself.
        neighbours = _STABLE_NEIGHBOURS.search(text, start, end + 1)
        return neighbours.start() + 1 if neighbours else start

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


def stable_blocks(
    chunks: Iterable[str],
    pretokenizer: Pretokenizer,
    specials: SpecialTokenFinder,
    block_characters: int = BLOCK_CHARACTERS,
) -> Iterator[str]:
    """Regroup the chunks of one text into blocks whose pretokens, one block after another, are those of the whole.

    Memory is bounded by `block_characters` and by the longest stretch without a stable cut. Text with an expression
    of the user's own is cut only at special tokens.
    """
    held: list[str] = []
    held_characters, wanted_characters = 0, block_characters
    for piece in _slices(chunks, block_characters):
        held.append(piece)
        held_characters += len(piece)
        if held_characters < wanted_characters:
            continue
        text = "".join(held)
        undecided = specials.first_undecided(text)
        cut = pretokenizer.last_stable_cut(text, specials.last_decided_end(text, undecided), undecided)
        if cut:
            yield text[:cut]
        held, held_characters = [text[cut:]], len(text) - cut
        # Looking again only when the rest has doubled keeps the work linear where there is nowhere to cut.
        wanted_characters = max(block_characters, 2 * held_characters)
    rest = "".join(held)
    if rest:
        yield rest


def _slices(chunks: Iterable[str], characters: int) -> Iterator[str]:
    for chunk in chunks:
        for start in range(0, len(chunk), characters):
            yield chunk[start : start + characters]


def explain_lone_surrogate(text: str) -> str:
    """Say in words where a text cannot be written as UTF-8, and what to do."""
    match = _LONE_SURROGATE.search(text)
    assert match is not None, "only called after UTF-8 encoding has failed"
    return (
        f"the text holds a lone surrogate U+{ord(match.group()):04X} at character {match.start()}, which has no UTF-8 "
        "form; repair it with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
    )
