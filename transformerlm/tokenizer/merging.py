"""Apply the learned merges to one pretoken: the heart of byte-pair encoding.

A pretoken starts as single bytes. Of all neighbouring pairs, the one whose merge was learned first (the lowest rank)
is joined, at its leftmost place; then again, until no neighbouring pair has a merge:

    l o w e r   ->   l o w er   ->   lo w er   ->   low er        (merges learned: "e r", "l o", "lo w")
"""

from heapq import heapify, heappop, heappush
from itertools import pairwise

from transformerlm.tokenizer.vocabulary import Vocabulary

# Scanning all pairs again for each merge is quadratic but cheap for words; above this many bytes a heap is faster.
LONGEST_SCANNED_WORD_BYTES = 100

MAX_CACHED_WORDS = 2**18
MAX_CACHED_WORD_CHARACTERS = 64

_NO_RANK = 2**62
_NO_TOKEN = -1


class MergeTable:
    """Turn the bytes of a pretoken into token ids."""

    def __init__(self, vocabulary: Vocabulary):
        ids = vocabulary.ordinary_ids()
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        # Ranks and ids differ: the order of merges decides, and two merges may make the same token.
        self._rank_of_pair = {(ids[left], ids[right]): rank for rank, (left, right) in enumerate(vocabulary.merges)}
        self._id_of_rank = [ids[left + right] for left, right in vocabulary.merges]

    def apply(self, word: bytes) -> list[int]:
        """Return the token ids of one pretoken."""
        ids = [self._byte_ids[byte] for byte in word]
        return self._merge_by_scanning(ids) if len(ids) <= LONGEST_SCANNED_WORD_BYTES else self._merge_by_heap(ids)

    def _merge_by_scanning(self, ids: list[int]) -> list[int]:
        """Join the best pair until there is none; quadratic in the length."""
        rank_of_pair = self._rank_of_pair
        while len(ids) > 1:
            ranks = [rank_of_pair.get(pair, _NO_RANK) for pair in pairwise(ids)]
            best = min(ranks)
            if best == _NO_RANK:
                break
            left = ranks.index(best)
            ids[left : left + 2] = [self._id_of_rank[best]]
        return ids

    def _merge_by_heap(self, ids: list[int]) -> list[int]:
        """Do the same in n log n: a heap gives the best pair, a linked list its neighbours.

        A pair is known by the position of its left token. Joining keeps the left position, now holding the new token,
        and empties the right one. Pairs that vanish stay in the heap and are recognised when they come up: the tokens
        at their position no longer have their rank.
        """
        rank_of_pair = self._rank_of_pair
        end = len(ids)
        ids = [*ids, _NO_TOKEN]  # one sentinel, at index `end` and at index -1: no pair with it has a rank
        previous = list(range(-1, end))
        following = [*range(1, end + 1), end]
        heap = [(rank_of_pair[pair], position) for position, pair in enumerate(pairwise(ids)) if pair in rank_of_pair]
        heapify(heap)
        while heap:
            rank, left = heappop(heap)
            right = following[left]
            if rank_of_pair.get((ids[left], ids[right])) != rank:
                continue
            ids[left], ids[right] = self._id_of_rank[rank], _NO_TOKEN
            before, after = previous[left], following[right]
            following[left], previous[after] = after, left
            for first, second in ((before, left), (left, after)):
                new_rank = rank_of_pair.get((ids[first], ids[second]))
                if new_rank is not None:
                    heappush(heap, (new_rank, first))
        return [id for id in ids if id != _NO_TOKEN]


class WordCache(dict[str, list[int]]):
    """Remember the ids of words: text repeats itself, and merging is the slow part.

    Looking up an unknown word merges it. When full, the cache starts over: the frequent words are soon back.
    """

    def __init__(self, merge_table: MergeTable):
        self._merge_table = merge_table

    def __missing__(self, word: str) -> list[int]:
        ids = self._merge_table.apply(word.encode())
        if len(word) <= MAX_CACHED_WORD_CHARACTERS:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids
