"""Recipe arguments: `key=value` as documented, `--key value`, or by position; words after `--` are kept as they are."""

from __future__ import annotations

import difflib
import shlex

LONGEST_NUMBER = 9
"""Digits of a number: what bash, sleep and a clock can still count with."""


class UsageError(Exception):
    """What the user can mend; the message says how."""


class Arguments:
    """The options of one recipe, and the words after `--`."""

    def __init__(self, options: dict[str, str], words: list[str]):
        self.options = options
        self.words = words

    def text(self, name: str, default: str = "") -> str:
        """Return an option, the default where it is missing or empty."""
        return self.options.get(name) or default

    def flag(self, name: str, default: bool = False) -> bool:
        """Read an option that switches something on or off."""
        value = self.text(name, "1" if default else "0").lower()
        if value not in ("1", "yes", "true", "0", "no", "false"):
            raise UsageError(f'{name}: "{value}" is neither yes nor no; use {name}=1 or {name}=0')
        return value in ("1", "yes", "true")

    def number(self, name: str, default: float) -> str:
        """Return an option that has to be a number, zero or more."""
        value = self.text(name, str(default))
        if not value.replace(".", "", 1).isdigit() or not value.isascii() or len(value) > LONGEST_NUMBER:
            raise UsageError(
                f'{name}: "{value}" is not a number of at most {LONGEST_NUMBER} digits; for example {name}={default}'
            )
        return value

    def count(self, name: str, default: int) -> str:
        """Return an option that has to be a whole number, zero or more."""
        value = self.number(name, default)
        if "." in value:
            raise UsageError(f'{name}: "{value}" is not a whole number; for example {name}={default}')
        return str(int(value))  # without zeros in front, which make it octal for bash

    def split(self, name: str, default: str = "") -> list[str]:
        """Cut an option into words as a shell would: quotes and backslashes hold together, nothing is expanded."""
        value = self.text(name, default)
        try:
            return shlex.split(value)
        except ValueError as error:
            raise UsageError(f"{name}: {error} in {value!r}; close the quotation, or write \\' for a quote") from error


def parse_arguments(words: list[str], names: tuple[str, ...], takes_words: bool) -> Arguments:
    """Match a recipe's words with the names of its options.

    Raises UsageError, naming the nearest option, if one is unknown or given twice.
    """
    options: dict[str, str] = {}
    rest: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--" and takes_words:
            rest, words = words, []
            continue
        name, value = _match(word, words, names, options)
        if name in options:
            raise UsageError(f'{name} is given twice: "{options[name]}" and "{value}"')
        options[name] = value
    return Arguments(options, rest)


def _match(word: str, following: list[str], names: tuple[str, ...], taken: dict[str, str]) -> tuple[str, str]:
    """Return the option that a word sets, and its value; takes the next word where that is the value."""
    name, has_value, value = word.partition("=")
    bare = name.lstrip("-").replace("-", "_")
    if bare in names and has_value:
        return bare, value
    if bare in names and name.startswith("--"):
        if not following:
            raise UsageError(f"{name} needs a value")
        return bare, following.pop(0)
    free = [candidate for candidate in names if candidate not in taken]
    if not word.startswith("-") and not (has_value and bare.isidentifier()) and free:
        return free[0], word
    nearest = difflib.get_close_matches(bare, names, 1)
    known = f"did you mean {nearest[0]}=?" if nearest else f"known: {', '.join(names) or 'none'}"
    raise UsageError(f'unknown argument "{word}"; {known}')
