"""Small help with English, for messages."""

from collections.abc import Iterable


def join_or(words: Iterable[object]) -> str:
    """Return "a, b or c"."""
    *firsts, last = map(str, words)
    return f"{', '.join(firsts)} or {last}" if firsts else last


def with_article(words: str) -> str:
    """Put "a" or "an" before a description of a type, where it takes one."""
    first = words.partition(" ")[0]
    return {"integer": "an ", "number": "a ", "list": "a ", "table": "a "}.get(first, "") + words
