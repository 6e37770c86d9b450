"""Small help with English, for messages."""

from collections.abc import Iterable


def join_or(words: Iterable[object], joint: str = "or") -> str:
    """Return "a, b or c"."""
    *firsts, last = map(str, words)
    return f"{', '.join(firsts)} {joint} {last}" if firsts else last


def join_and(words: Iterable[object]) -> str:
    """Return "a, b and c"."""
    return join_or(words, "and")


def quote_or(words: Iterable[str]) -> str:
    """Return '"a", "b" or "c"'."""
    return join_or(f'"{word}"' for word in words)


def with_article(words: str) -> str:
    """Put "a" or "an" before a description of a type, where it takes one."""
    first = words.partition(" ")[0]
    return {"integer": "an ", "number": "a ", "list": "a ", "table": "a "}.get(first, "") + words
