"""Vocabularies as tokenizer.json, the format of Hugging Face's `tokenizers`, and as the files of GPT-2.

Only byte-level BPE as GPT-2 introduced it is read: everything else would give other ids, so it is refused, naming
what differs. What a file adds around a text (its post-processor) is no part of a Tokenizer and is left aside.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformerlm.interop.splitting import Step, pattern_of, steps_of
from transformerlm.tokenizer import END_OF_TEXT, Tokenizer, Vocabulary
from transformerlm.tokenizer.io import read_gpt2_files
from transformerlm.tokenizer.merging import MergeTable
from transformerlm.tokenizer.vocabulary import from_printable, to_printable

TOKENIZER_JSON = "tokenizer.json"

# Options of a BPE model that change ids, and the values that leave them as they are.
_PLAIN_OPTIONS: dict[str, tuple[object, ...]] = {
    "dropout": (None, 0.0),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "fuse_unk": (False,),
    "byte_fallback": (False,),
}


class ForeignTokenizerError(ValueError):
    """A tokenizer that would not give the same ids here; the message says what differs."""


def write_tokenizer_json(tokenizer: Tokenizer, path: Path | str, *, start_token: str | None = None) -> None:
    """Write a tokenizer for `tokenizers.Tokenizer.from_file`.

    start_token: a special token to put before every text, unless its reader says add_special_tokens = False.
    Raises ValueError if the pattern has no known form there.
    """
    content = to_tokenizer_json(tokenizer.vocabulary, start_token)
    Path(path).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def to_tokenizer_json(vocabulary: Vocabulary, start_token: str | None = None) -> dict[str, object]:
    """Return the content of a tokenizer.json; parameters and errors as for `write_tokenizer_json`."""
    special_of_id = {id: special for special, id in vocabulary.special_tokens.items()}
    steps = steps_of(vocabulary.pattern)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id, special_of_id[id]) for id in sorted(special_of_id)],
        "normalizer": None,
        "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": list(steps)},
        "post_processor": None if start_token is None else _prepending(start_token, vocabulary),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {special_of_id.get(id) or to_printable(token): id for id, token in enumerate(vocabulary.tokens)},
            "merges": [[to_printable(left), to_printable(right)] for left, right in vocabulary.merges],
        },
    }


def _added_token(id: int, text: str) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": text, **flags, "special": True}


def _prepending(start_token: str, vocabulary: Vocabulary) -> dict[str, object]:
    """Return a post-processor that puts a token before every text."""
    start = {"SpecialToken": {"id": start_token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    id = vocabulary.special_tokens[start_token]
    return {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, second],
        "special_tokens": {start_token: {"id": start_token, "ids": [id], "tokens": [start_token]}},
    }


def read_tokenizer_json(path: Path | str) -> Tokenizer:
    """Read a tokenizer that gives the ids that `tokenizers` gives, without the tokens added around a text.

    Raises ForeignTokenizerError, saying what differs, if it is no byte-level BPE of GPT-2's kind.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForeignTokenizerError(f"{path}: not a readable tokenizer.json ({error})") from error
    try:
        return Tokenizer(from_tokenizer_json(content))
    except ForeignTokenizerError as error:
        raise ForeignTokenizerError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForeignTokenizerError(f"{path}: cannot be read as byte-level BPE: {error}") from error


def from_tokenizer_json(content: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary that a tokenizer.json describes.

    Raises ForeignTokenizerError, or ValueError if the parts of the vocabulary do not fit each other.
    """
    model = content.get("model")
    if not isinstance(model, Mapping) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise ForeignTokenizerError(f"its model is {kind}, and only byte-level BPE can be read here")
    for option, plain in _PLAIN_OPTIONS.items():
        if model.get(option, plain[0]) not in plain:
            raise ForeignTokenizerError(f"its BPE has {option} = {model[option]!r}, which gives other ids than here")
    if content.get("normalizer") is not None:
        raise ForeignTokenizerError(
            f"its normalizer ({content['normalizer'].get('type')}) changes the text before it is cut, which nothing "
            "here does"
        )
    try:
        pattern = pattern_of(list(_flatten(content.get("pre_tokenizer"))))
    except ValueError as error:
        raise ForeignTokenizerError(str(error)) from None
    specials = _read_added_tokens(content.get("added_tokens") or [])
    vocabulary = _build(model["vocab"], [_read_merge(merge) for merge in model["merges"]], specials, pattern)
    if model.get("ignore_merges"):
        _check_merges_reach_all(vocabulary)
    return vocabulary


def read_gpt2(
    vocab_path: Path | str, merges_path: Path | str, special_tokens: Sequence[str] = (END_OF_TEXT,)
) -> Tokenizer:
    """Read the two files of GPT-2, vocab.json and merges.txt, which do not say what is special.

    Raises ValueError naming the file, the line and the remedy.
    """
    return Tokenizer(read_gpt2_files(Path(vocab_path), Path(merges_path), special_tokens))


def _flatten(pre_tokenizer: Mapping[str, Any] | None) -> list[Step]:
    """Return the steps of a pre-tokenizer, sequences within sequences taken apart."""
    if pre_tokenizer is None:
        return []
    if pre_tokenizer.get("type") != "Sequence":
        return [pre_tokenizer]
    return [step for each in pre_tokenizer["pretokenizers"] for step in _flatten(each)]


def _read_added_tokens(added: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the special tokens, refusing those that match more or less than their own text."""
    for token in added:
        odd = [flag for flag in ("single_word", "lstrip", "rstrip") if token.get(flag)]
        if odd:
            raise ForeignTokenizerError(
                f"its added token {token['content']!r} has {odd[0]} = true, and special tokens match exactly here"
            )
        if not token.get("special"):
            raise ForeignTokenizerError(
                f"its added token {token['content']!r} is not special, and only special tokens stand outside BPE here"
            )
    if len({bool(token.get("normalized")) for token in added}) > 1:
        raise ForeignTokenizerError(
            "some of its added tokens are normalized and others not, so they are looked for one group after the "
            "other, and not at once as here"
        )
    return {token["content"]: token["id"] for token in added}


def _read_merge(merge: str | Sequence[str]) -> tuple[bytes, bytes]:
    """Read "left right" (older files) or ["left", "right"]."""
    parts = merge.split(" ") if isinstance(merge, str) else list(merge)
    if len(parts) != 2:
        raise ForeignTokenizerError(f"its merge {merge!r} is not a pair of tokens")
    return from_printable(parts[0]), from_printable(parts[1])


def _build(
    id_of_text: Mapping[str, int], merges: Sequence[tuple[bytes, bytes]], specials: Mapping[str, int], pattern: str
) -> Vocabulary:
    """Put the parts together; special tokens may stand in the vocabulary or behind it."""
    text_of_id = {id: text for text, id in id_of_text.items()}
    for special, id in specials.items():
        if text_of_id.setdefault(id, special) != special:
            raise ForeignTokenizerError(f"the id {id} is both {special!r} and {text_of_id[id]!r}")
    missing = next((id for id in range(len(text_of_id)) if id not in text_of_id), None)
    if missing is not None:
        raise ForeignTokenizerError(f"no token has id {missing}, yet there are larger ones; ids have no gaps here")
    tokens = []
    for id in range(len(text_of_id)):
        text = text_of_id[id]
        tokens.append(text.encode() if text in specials else from_printable(text))
    return Vocabulary(tuple(tokens), tuple(merges), dict(specials), pattern)


def _check_merges_reach_all(vocabulary: Vocabulary) -> None:
    """Allow `ignore_merges`, which takes a word that is a token as it is, only where merging does the same."""
    table = MergeTable(vocabulary)
    for token, id in vocabulary.ordinary_ids().items():
        if table.apply(token) != [id]:
            raise ForeignTokenizerError(
                f"it has ignore_merges = true, and its merges do not make the token {to_printable(token)!r}"
            )
