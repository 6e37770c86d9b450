"""What a tokenizer knows: its tokens, the merges that made them, its special tokens and its splitting pattern.

A vocabulary made here is laid out without gaps as

    0 .. 255    the single bytes, in GPT-2's order: the 188 printable ones first ("!" is 0), then the other 68
    256 ..      one token per merge, in the order learned (two merges that spell the same bytes share one id)
    last        the special tokens, in the order given

Vocabularies made elsewhere may number their tokens in any order, as long as no id is missing.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from transformerlm.tokenizer.pretokenize import resolve_pattern

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"

Merge = tuple[bytes, bytes]

# GPT-2 writes tokens as text by giving every byte a visible character of its own: a byte that is already visible in
# Latin-1 stands for itself, the n-th of the others becomes chr(256 + n). A space (32) is the 33rd of those: "Ġ".
_VISIBLE_BYTES = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN_BYTES = [byte for byte in range(256) if byte not in _VISIBLE_BYTES]

BYTE_ORDER = bytes(_VISIBLE_BYTES + _HIDDEN_BYTES)
SINGLE_BYTES = [bytes([byte]) for byte in BYTE_ORDER]

_CHARACTER_OF_BYTE = {byte: chr(byte) for byte in _VISIBLE_BYTES} | {
    byte: chr(256 + n) for n, byte in enumerate(_HIDDEN_BYTES)
}
_BYTE_OF_CHARACTER = {character: byte for byte, character in _CHARACTER_OF_BYTE.items()}


def to_printable(token: bytes) -> str:
    """Spell a token in GPT-2's printable alphabet, one character per byte."""
    return token.decode("latin-1").translate(_CHARACTER_OF_BYTE)


def from_printable(text: str) -> bytes:
    """Read a token spelled in GPT-2's printable alphabet.

    Raises ValueError if a character is not one of the 256.
    """
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in text)
    except KeyError as error:
        raise ValueError(f"{text!r} holds {error.args[0]!r}, which stands for no byte in GPT-2's alphabet") from None


@dataclass(frozen=True)
class Vocabulary:
    """Hold everything that decides how text becomes ids; checked once, when made.

    Raises ValueError if the parts do not fit each other.
    """

    tokens: tuple[bytes, ...]
    """The bytes of each token; the index is the id."""
    merges: tuple[Merge, ...]
    """Pairs of tokens to join, the first learned first."""
    special_tokens: dict[str, int]
    """Ids of the tokens that stand for themselves and never merge, such as "<|endoftext|>"."""
    pattern: str = "gpt2"
    """How text is cut before merging: a name in pretokenize.PATTERNS or a regular expression."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", resolve_pattern(self.pattern))
        check_special_tokens(list(self.special_tokens))
        self._check_tokens()
        self._check_merges()

    @classmethod
    def from_merges(cls, merges: Iterable[Merge], special_tokens: Sequence[str], pattern: str = "gpt2") -> "Vocabulary":
        """Lay out bytes, then merges, then special tokens."""
        merges = tuple(merges)
        check_special_tokens(special_tokens)
        # A dictionary keeps the first place of a token that two merges spell.
        ordinary = list(dict.fromkeys([*SINGLE_BYTES, *(left + right for left, right in merges)]))
        tokens = (*ordinary, *(special.encode() for special in special_tokens))
        special_ids = {special: id for id, special in enumerate(special_tokens, start=len(ordinary))}
        return cls(tokens, merges, special_ids, pattern)

    def __len__(self) -> int:
        return len(self.tokens)

    def ordinary_ids(self) -> dict[bytes, int]:
        """Map the bytes of every token but the special ones to its id."""
        special_ids = set(self.special_tokens.values())
        return {token: id for id, token in enumerate(self.tokens) if id not in special_ids}

    def _check_tokens(self) -> None:
        for special, id in self.special_tokens.items():
            if not (0 <= id < len(self.tokens) and self.tokens[id] == special.encode()):
                raise ValueError(f"special token {special!r} is said to have id {id}, which is not its place")
        ordinary = self.ordinary_ids()
        if len(ordinary) + len(self.special_tokens) != len(self.tokens):
            raise ValueError("the same token stands at two ids; keep one of them")
        missing = [byte for byte in SINGLE_BYTES if byte not in ordinary]
        if missing:
            raise ValueError(
                f"the byte {missing[0]!r} has no token; a byte-level vocabulary holds all 256 single bytes"
            )
        printable = {to_printable(token) for token in ordinary}
        for special in self.special_tokens:
            if special in printable or special.encode() in ordinary:
                raise ValueError(f"special token {special!r} is also an ordinary token; choose a text like '<|name|>'")

    def _check_merges(self) -> None:
        ordinary = self.ordinary_ids()
        if len(set(self.merges)) != len(self.merges):
            raise ValueError("the same pair is merged twice; keep the first")
        for left, right in self.merges:
            problem = describe_merge_problem(left, right, ordinary)
            if problem:
                raise ValueError(problem)
        unreachable = ordinary.keys() - set(SINGLE_BYTES) - {left + right for left, right in self.merges}
        if unreachable:
            token = min(unreachable, key=ordinary.__getitem__)
            raise ValueError(
                f"token {to_printable(token)!r} (id {ordinary[token]}) is neither a single byte nor made by a merge; "
                "if it is a special token, list it among the special tokens"
            )


def describe_merge_problem(left: bytes, right: bytes, ordinary: Container[bytes]) -> str | None:
    """Say in words why a merge does not fit the ordinary tokens, or return None if it does."""
    for token in (left, right, left + right):
        if token not in ordinary:
            merge = f"{to_printable(left)} {to_printable(right)}"
            return f"the merge {merge!r} needs the token {to_printable(token)!r}, which is not an ordinary token"
    return None


def check_special_tokens(special_tokens: Sequence[str]) -> None:
    """Refuse special tokens that could not be told apart or written down.

    Raises ValueError for a bare string, an empty or repeated special token, or one without a UTF-8 form.
    """
    if isinstance(special_tokens, str):
        raise ValueError(f"special tokens must be a list of texts, not one text; write [{special_tokens!r}]")
    seen = set()
    for special in special_tokens:
        if not isinstance(special, str) or not special:
            raise ValueError(f"a special token must be a text of at least one character, not {special!r}; remove it")
        if special in seen:
            raise ValueError(f"special token {special!r} is given twice; keep one")
        if any("\ud800" <= character <= "\udfff" for character in special):
            raise ValueError(
                f"special token {special!r} holds a lone surrogate, which has no UTF-8 form; choose another"
            )
        seen.add(special)
