"""Vocabularies as tiktoken's rank files: one line "base64-of-token rank" per ordinary token.

tiktoken joins any two neighbours whose bytes together are a token, lowest rank first; here only learned pairs are
joined. Both give the same ids exactly if each token's rank order is the order of the merges and each token is learned
from the pair that joining by rank ends with: in a longer word the inside of a token is joined in the very order in
which the token alone would be, or it would not become that token. So `ranks -> merges -> ranks` can be computed and
checked, token by token, rather than hoped for.

A rank file says neither the pattern nor the special tokens: they stand beside it as JSON, under the names of
tiktoken.Encoding's own parameters.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from itertools import pairwise, permutations
from pathlib import Path

from transformerlm.interop.splitting import expression_of, pattern_of_expression
from transformerlm.tokenizer import Tokenizer, Vocabulary
from transformerlm.tokenizer.vocabulary import Merge, to_printable


def write_tiktoken(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write a rank file, and beside it, as NAME.json, {"pat_str": ..., "special_tokens": {...}}.

    Raises ValueError if tiktoken could not give the same ids.
    """
    path, vocabulary = Path(path), tokenizer.vocabulary
    settings = {"pat_str": expression_of(vocabulary.pattern), "special_tokens": vocabulary.special_tokens}
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in to_ranks(vocabulary).items()]
    path.write_text("".join(lines), encoding="ascii")
    _settings_path(path).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tiktoken(
    path: Path | str, pattern: str | None = None, special_tokens: Mapping[str, int] | None = None
) -> Tokenizer:
    """Read a rank file; `pattern` (a name or expression) and `special_tokens` replace those of the JSON beside it.

    Raises ValueError naming the line or the token that cannot be had here.
    """
    path = Path(path)
    ranks = _read_ranks(path)
    if pattern is None or special_tokens is None:
        settings = _read_settings(path)
        pattern = pattern_of_expression(settings["pat_str"]) if pattern is None else pattern
        special_tokens = settings["special_tokens"] if special_tokens is None else special_tokens
    try:
        return Tokenizer(from_ranks(ranks, special_tokens, pattern))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def to_ranks(vocabulary: Vocabulary) -> dict[bytes, int]:
    """Return the rank of each ordinary token, which is its id.

    Raises ValueError if joining by rank would not repeat the merges, or special tokens could be mistaken.
    """
    ranks = dict(sorted(vocabulary.ordinary_ids().items(), key=lambda item: item[1]))
    if find_merges(ranks) != list(vocabulary.merges):
        raise ValueError(
            "its ids are not in the order of its merges, or two merges make one token: tiktoken, which merges by "
            "rank alone, would give other ids"
        )
    for shorter, longer in permutations(vocabulary.special_tokens, 2):
        if longer.startswith(shorter):
            raise ValueError(
                f"the special token {shorter!r} is the beginning of {longer!r}, and tiktoken takes either of the two"
            )
    return ranks


def from_ranks(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], pattern: str) -> Vocabulary:
    """Return the vocabulary that gives tiktoken's ids; raises ValueError if there is none."""
    token_of_id = {id: token for token, id in ranks.items()}
    for special, id in special_tokens.items():
        if id in token_of_id:
            raise ValueError(f"the special token {special!r} has the id {id} of another token")
        token_of_id[id] = special.encode()
    missing = next((id for id in range(len(token_of_id)) if id not in token_of_id), None)
    if missing is not None:
        raise ValueError(f"no token has id {missing}, yet there are larger ones; ids have no gaps here")
    tokens = tuple(token_of_id[id] for id in range(len(token_of_id)))
    return Vocabulary(tokens, tuple(find_merges(ranks)), dict(special_tokens), pattern)


def find_merges(ranks: Mapping[bytes, int]) -> list[Merge]:
    """Find the pair from which joining by rank makes each token, in the order of ranks.

    Raises ValueError for a token that joining never makes.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = _join_below(token, ranks, rank)
        if len(parts) != 2:
            raise ValueError(f"joining by rank never makes the token {to_printable(token)!r} (rank {rank})")
        merges.append((parts[0], parts[1]))
    return merges


def _join_below(word: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """Join neighbours, lowest rank first and leftmost among equals, using only ranks below a limit."""
    parts = [word[place : place + 1] for place in range(len(word))]
    while len(parts) > 1:
        candidates = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        best = min(candidates)
        if best >= limit:
            break
        place = candidates.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            ranks[base64.b64decode(encoded, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f'{path}, line {number}: expected "base64-of-token rank", found {line[:60]!r}') from None
    return ranks


def _settings_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_settings(path: Path) -> dict:
    """Read the JSON beside a rank file."""
    settings_path = _settings_path(path)
    try:
        settings = json.loads(settings_path.read_text(encoding="utf-8"))
        return {"pat_str": settings["pat_str"], "special_tokens": settings["special_tokens"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} says neither the pattern nor the special tokens, and {settings_path} does not either ({error}); "
            "give both, or write that file"
        ) from error
