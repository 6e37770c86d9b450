"""Learn merges in plain Python: the reference for the compiled kernels, and what small corpora are learned with.

    until the vocabulary is full:
        take the pair of neighbouring tokens that occurs most often
        add the token it spells, and join the pair wherever it occurs

The loop is fast enough because a merge changes few counts: only words that hold the pair are touched, and a heap finds
the next best pair.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from transformerlm.tokenizer.vocabulary import BYTE_ORDER, SINGLE_BYTES, Merge

Pair = tuple[int, int]

_COMPLEMENT = bytes(255 - byte for byte in range(256))


def learn_merges(word_counts: Mapping[str, int], max_merges: int) -> Iterator[tuple[Merge, int]]:
    """Yield merges, the most frequent first, until there are so many or no pair is left.

    word_counts: how often each distinct pretoken occurs.  With each merge comes the number of tokens by which the
    corpus has become shorter so far.
    """
    corpus = _PairCounts(word_counts)
    for _ in range(max_merges):
        pair = corpus.pop_best_pair()
        if pair is None:
            return
        corpus.merge(pair)
        left, right = pair
        yield (corpus.tokens[left], corpus.tokens[right]), corpus.tokens_saved


class _PairCounts:
    """The distinct words of a corpus as token ids, and the counts of neighbouring pairs, kept true as pairs merge."""

    def __init__(self, word_counts: Mapping[str, int]):
        self.tokens: list[bytes] = list(SINGLE_BYTES)
        self._descending_key = [_descending_key(token) for token in self.tokens]
        byte_ids = [BYTE_ORDER.index(byte) for byte in range(256)]
        self._words = [[byte_ids[byte] for byte in word.encode()] for word in word_counts]
        self._word_counts = list(word_counts.values())
        self.tokens_saved = 0
        self._pair_counts: defaultdict[Pair, int] = defaultdict(int)
        self._words_with: defaultdict[Pair, set[int]] = defaultdict(set)
        for index, (word, count) in enumerate(zip(self._words, self._word_counts, strict=True)):
            for pair in pairwise(word):
                self._pair_counts[pair] += count
                self._words_with[pair].add(index)
        self._heap = [self._heap_entry(pair) for pair in self._pair_counts]
        heapify(self._heap)

    def pop_best_pair(self) -> Pair | None:
        """Return the pair that occurs most often, of equals the greatest, or None if no pair is left.

        The heap is lazy. A count that grew was pushed anew; a count that shrank is found out only here, where its
        entry turns up too early and goes back with the true count.
        """
        while self._heap:
            entry = heappop(self._heap)
            pair = entry[-1]
            count = self._pair_counts.get(pair, 0)
            if count == -entry[0]:
                return pair
            if 0 < count < -entry[0]:
                heappush(self._heap, self._heap_entry(pair))
        return None

    def merge(self, pair: Pair) -> None:
        """Join a pair in every word and bring the counts of its neighbours up to date."""
        new_id = self._add_token(self.tokens[pair[0]] + self.tokens[pair[1]])
        changes: defaultdict[Pair, int] = defaultdict(int)
        for index in self._words_with.pop(pair):
            old_word, count = self._words[index], self._word_counts[index]
            new_word = _join_pair(old_word, pair, new_id)
            for old_pair in pairwise(old_word):
                changes[old_pair] -= count
            for new_pair in pairwise(new_word):
                changes[new_pair] += count
                if new_id in new_pair:
                    self._words_with[new_pair].add(index)
            self._words[index] = new_word
            self.tokens_saved += count * (len(old_word) - len(new_word))
        for changed_pair, change in changes.items():
            self._change_count(changed_pair, change)

    def _change_count(self, pair: Pair, change: int) -> None:
        self._pair_counts[pair] += change
        if self._pair_counts[pair] == 0:
            del self._pair_counts[pair]
        elif change > 0:
            heappush(self._heap, self._heap_entry(pair))

    def _add_token(self, token: bytes) -> int:
        """Append a token and return its id.

        It is always a new one: the same bytes between two token borders are cut alike everywhere in the corpus, so
        once a pair has made a token, no other pair can spell it.
        """
        self.tokens.append(token)
        self._descending_key.append(_descending_key(token))
        return len(self.tokens) - 1

    def _heap_entry(self, pair: Pair) -> tuple[int, str, str, Pair]:
        """Order pairs so that the smallest entry is the pair to merge next."""
        left, right = pair
        return -self._pair_counts[pair], self._descending_key[left], self._descending_key[right], pair


def _join_pair(word: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replace a pair by one id, from left to right."""
    left, right = pair
    joined, position, last = [], 0, len(word) - 1
    while position <= last:
        if word[position] == left and position < last and word[position + 1] == right:
            joined.append(new_id)
            position += 2
        else:
            joined.append(word[position])
            position += 1
    return joined


def _descending_key(token: bytes) -> str:
    """Map byte strings to texts of the opposite order.

    Complementing each byte turns the order around, except that a prefix would still come before the longer string: an
    end mark above all complements puts it after.
    """
    return token.translate(_COMPLEMENT).decode("latin-1") + "\u0100"
