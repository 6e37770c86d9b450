"""How the results of two tokenizers differ, and whether a difference is a matter of taste."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from benchmarking.tokenizer_tasks import plain_documents
from transformerlm.tokenizer.pretokenize import Pretokenizer


def describe_difference(task: str, theirs: bytes, ours: bytes) -> str:
    """Say where a result begins to differ from ours."""
    dtype, unit = (np.uint8, "byte") if task == "decode" else (np.uint32, "token")
    first, second = np.frombuffer(theirs, dtype), np.frombuffer(ours, dtype)
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    where = int(differing[0]) if len(differing) else length
    return f"differs from ours from {unit} {where} on ({len(first)} against {len(second)} {unit}s)"


def explain_merges(theirs: Sequence[bytes], ours: Sequence[bytes], text: str, tie_rule: str | None) -> tuple[str, str]:
    """Say whether learned tokens differ wrongly (a problem) or because equal counts are ordered otherwise (a remark).

    Where the lists part, both tokens must come from pairs that occur equally often in the text.
    """
    parting = next((n for n, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
    if parting is None:
        return f"learned {len(theirs)} tokens, ours {len(ours)}", ""
    common = len(set(theirs) & set(ours))
    how = f"from merge {parting} on, {common} of {len(ours)} tokens the same"
    counts = count_pairs(text, ours[:parting])
    if tie_rule is None or counts[theirs[parting]] != counts[ours[parting]]:
        return f"merges differ {how}", ""
    return "", f"{tie_rule}: other merges {how}"


def count_pairs(text: str, tokens: Sequence[bytes]) -> Counter[bytes]:
    """Return how often neighbouring tokens spell each byte string, after the merges that made `tokens`.

    A token is the join of the two tokens that its own bytes are encoded as before it was learned.
    """
    pretokenizer, ranks = Pretokenizer("gpt2"), {token: rank for rank, token in enumerate(tokens)}
    words = Counter(word for document in plain_documents(text) for word in pretokenizer.split(document))
    counts: Counter[bytes] = Counter()
    for word, count in words.items():
        for left, right in pairwise(merge_word(word.encode(), ranks)):
            counts[left + right] += count
    return counts


def merge_word(word: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Join neighbours whose join was learned, the first learned first, until none is left."""
    parts = [word[index : index + 1] for index in range(len(word))]
    while len(parts) > 1:
        ranked = [(ranks.get(left + right, len(ranks)), place) for place, (left, right) in enumerate(pairwise(parts))]
        rank, place = min(ranked)
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
