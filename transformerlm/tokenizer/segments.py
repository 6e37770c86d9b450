"""Cut a block at its special tokens, for the compiled kernels: each stretch between them is a text of its own."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from transformerlm.tokenizer.blocks import Block
from transformerlm.tokenizer.kernels.pretokens import find_pairs
from transformerlm.tokenizer.pretokenize import SpecialTokenFinder

NO_SPECIAL = -1

_MOST_PLACES = 1024


def cut_at_specials(block: Block, specials: SpecialTokenFinder, special_ids: Mapping[str, int]) -> np.ndarray:
    """Return the stretches around special tokens: int64 [segments, 3], begin, end, and the special id behind or -1."""
    rows, begin = [], 0
    for match_begin, match_end, special in find_specials(block, specials):
        rows.append((begin, match_begin, special_ids[special]))
        begin = match_end
    rows.append((begin, block.size, NO_SPECIAL))
    return np.array(rows, np.int64)


def cut_documents(block: Block, ends: Sequence[int], specials: SpecialTokenFinder) -> np.ndarray:
    """Return the stretches between special tokens and the ends of documents: int64 [segments, 3]."""
    is_cut = next(find_specials(block, specials), None) is not None
    rows = []
    for begin, end in pairwise([0, *ends]):
        position = begin
        # Searched one by one: what two documents spell together is no special token.
        for match_begin, match_end, _ in specials.find_in_bytes(block.view[begin:end]) if is_cut else ():
            rows.append((position, begin + match_begin, NO_SPECIAL))
            position = begin + match_end
        rows.append((position, end, NO_SPECIAL))
    return np.array(rows, np.int64).reshape(-1, 3)


def find_specials(block: Block, specials: SpecialTokenFinder) -> Iterator[tuple[int, int, str]]:
    """Yield what specials.find_in_bytes(block.view) does, ten times as fast where special tokens begin alike."""
    prefix, places = specials.common_bytes, np.empty(_MOST_PLACES, np.int64)
    count = find_pairs(block.buffer, block.size, *prefix[:2], places) if len(prefix) > 1 else _MOST_PLACES + 1
    if count > _MOST_PLACES:
        yield from specials.find_in_bytes(block.view)
        return
    end = 0
    for place in places[:count].tolist():
        if place >= end and (found := specials.match_bytes(block.view, place)):
            yield place, *found
            end = found[0]
