"""Read and write a vocabulary as three files, UTF-8 whatever the system says.

    vocab.json            {"!": 0, ...}: every token to its id, in GPT-2's printable alphabet, special ones as they are
    merges.txt            "#version: 0.2", then one merge per line, "left right", the first learned first
    special_tokens.json   {"pattern": "gpt2", "special_tokens": ["<|endoftext|>", ...]}

The first two are what Hugging Face's `tokenizers` reads and writes for byte-level BPE. The third says which tokens of
vocab.json are special and how text is cut, by name or as a regular expression; a bare list of special tokens is read
as well, with the pattern of GPT-2. Everything wrong with a file is a ValueError that names it, the line where there is
one, and the remedy.
"""

import hashlib
import json
from collections.abc import Container, Sequence
from pathlib import Path

from transformerlm.tokenizer.pretokenize import resolve_pattern
from transformerlm.tokenizer.streaming import replacing
from transformerlm.tokenizer.vocabulary import (
    Merge,
    Vocabulary,
    check_special_tokens,
    describe_merge_problem,
    from_printable,
    to_printable,
)

VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
SPECIAL_TOKENS_FILE = "special_tokens.json"

_MERGES_HEADER = "#version: 0.2"


def load_vocabulary(folder: Path) -> Vocabulary:
    """Read the three files of a folder.

    Raises ValueError naming the file, the line and the remedy.
    """
    return read_vocabulary(folder / VOCAB_FILE, folder / MERGES_FILE, folder / SPECIAL_TOKENS_FILE)


def save_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the three files into a folder, made if needed; each is replaced whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _serialize(vocabulary).items():
        with replacing(folder / name) as file:
            file.write(text.encode())


def fingerprint(vocabulary: Vocabulary) -> str:
    """Return the SHA-256 of the three files, in hexadecimal."""
    digest = hashlib.sha256()
    for text in _serialize(vocabulary).values():
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def read_vocabulary(vocab_path: Path, merges_path: Path, special_tokens_path: Path) -> Vocabulary:
    """Read a vocabulary from three files, wherever they are.

    Raises ValueError naming the file, the line and the remedy.
    """
    pattern, specials = _read_special_tokens(special_tokens_path)
    return _assemble(vocab_path, merges_path, specials, pattern, str(special_tokens_path))


def read_gpt2_files(vocab_path: Path, merges_path: Path, special_tokens: Sequence[str]) -> Vocabulary:
    """Read the two files that GPT-2 came with, which do not say what is special.

    Raises ValueError naming the file, the line and the remedy.
    """
    check_special_tokens(special_tokens)
    return _assemble(vocab_path, merges_path, special_tokens, "gpt2", "the list of special tokens")


def _assemble(
    vocab_path: Path, merges_path: Path, specials: Sequence[str], pattern: str, specials_origin: str
) -> Vocabulary:
    id_of_text = _read_ids(vocab_path)
    for special in specials:
        if special not in id_of_text:
            raise ValueError(
                f"{specials_origin}: special token {special!r} has no id in {vocab_path}; "
                f"add it there as {len(id_of_text)} or remove it here"
            )
    tokens = _spell_tokens(vocab_path, id_of_text, set(specials))
    special_ids = {special: id_of_text[special] for special in specials}
    ordinary = {token for id, token in enumerate(tokens) if id not in special_ids.values()}
    merges = _read_merges(merges_path, ordinary, vocab_path)
    try:
        return Vocabulary(tokens, merges, special_ids, pattern)
    except ValueError as error:
        raise ValueError(f"{vocab_path}, {merges_path} and {specials_origin} do not fit: {error}") from None


def _serialize(vocabulary: Vocabulary) -> dict[str, str]:
    """Return the text of each file by its name."""
    special_of_id = {id: special for special, id in vocabulary.special_tokens.items()}
    id_of_text = {special_of_id.get(id) or to_printable(token): id for id, token in enumerate(vocabulary.tokens)}
    merges = [f"{to_printable(left)} {to_printable(right)}" for left, right in vocabulary.merges]
    settings = {"pattern": vocabulary.pattern, "special_tokens": list(vocabulary.special_tokens)}
    return {
        VOCAB_FILE: json.dumps(id_of_text, ensure_ascii=False, indent=0) + "\n",
        MERGES_FILE: "\n".join([_MERGES_HEADER, *merges]) + "\n",
        SPECIAL_TOKENS_FILE: json.dumps(settings, ensure_ascii=False, indent=2) + "\n",
    }


def _read_ids(path: Path) -> dict[str, int]:
    """Read vocab.json and check that its ids are 0 to n - 1, each once."""
    id_of_text = _read_json(path)
    if not isinstance(id_of_text, dict):
        raise ValueError(f"{path}: expected an object that maps tokens to ids, found a {type(id_of_text).__name__}")
    text_of_id: dict[int, str] = {}
    for text, id in id_of_text.items():
        if type(id) is not int or id < 0:  # bool is a kind of int
            raise ValueError(f"{path}: token {text!r} has id {id!r}; an id is an integer from 0 up")
        if id in text_of_id:
            raise ValueError(f"{path}: tokens {text_of_id[id]!r} and {text!r} both have id {id}; give one another id")
        text_of_id[id] = text
    for id in range(len(text_of_id)):
        if id not in text_of_id:
            raise ValueError(f"{path}: no token has id {id}, yet there are larger ones; number them without gaps")
    return id_of_text


def _spell_tokens(path: Path, id_of_text: dict[str, int], specials: Container[str]) -> tuple[bytes, ...]:
    """Return the bytes of each token in the order of ids."""
    tokens = []
    for text in sorted(id_of_text, key=id_of_text.__getitem__):
        try:
            tokens.append(text.encode() if text in specials else from_printable(text))
        except ValueError as error:
            raise ValueError(
                f"{path}: token {id_of_text[text]}: {error}; if it is a special token, list it among them"
            ) from None
    return tuple(tokens)


def _read_special_tokens(path: Path) -> tuple[str, list[str]]:
    """Read the pattern and the special tokens."""
    content = _read_json(path)
    if isinstance(content, list):
        content = {"special_tokens": content}
    if not isinstance(content, dict) or not isinstance(content.get("special_tokens"), list):
        raise ValueError(f'{path}: expected {{"pattern": "gpt2", "special_tokens": ["<|endoftext|>"]}} or a list')
    pattern, specials = content.get("pattern", "gpt2"), content["special_tokens"]
    if not isinstance(pattern, str):
        raise ValueError(f"{path}: the pattern must be a text, found {pattern!r}; put it in quotes")
    try:
        check_special_tokens(specials)
        return resolve_pattern(pattern), specials
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_merges(path: Path, ordinary: Container[bytes], vocab_path: Path) -> tuple[Merge, ...]:
    """Read merges.txt and check each merge against the ordinary tokens."""
    first_line_of: dict[Merge, int] = {}
    # Not splitlines(): a line ends where "\n" is and nowhere else.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        try:
            left, right = map(from_printable, _split_merge(line))
            problem = describe_merge_problem(left, right, ordinary)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if problem:
            raise ValueError(f"{path}, line {number}: {problem} of {vocab_path}; are the files of one tokenizer?")
        if (left, right) in first_line_of:
            raise ValueError(f"{path}, line {number}: repeats line {first_line_of[left, right]}; remove one of them")
        first_line_of[left, right] = number
    return tuple(first_line_of)


def _split_merge(line: str) -> list[str]:
    parts = line.split(" ")
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"expected two tokens with one space between them, found {line!r}; correct or remove the line")
    return parts


def _read_json(path: Path) -> object:
    try:
        return json.loads(_read_text(path), object_pairs_hook=_refuse_duplicate_keys)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}, column {error.colno}: broken JSON ({error.msg}); is the file complete?"
        ) from None
    except _DuplicateKeyError as error:
        raise ValueError(f"{path}: the key {error.args[0]!r} occurs twice; remove one") from None


class _DuplicateKeyError(ValueError):
    pass


def _refuse_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object from its pairs; json alone would keep the last of two equal keys without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return content


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a tokenizer is three files: {VOCAB_FILE}, {MERGES_FILE} and {SPECIAL_TOKENS_FILE}"
        )
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is not UTF-8 ({error.reason}); convert the file to UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from None
