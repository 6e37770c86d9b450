"""Learn the merges of a vocabulary from text (Sennrich et al. 2016, on bytes as in Radford et al. 2019).

    count every distinct pretoken of the corpus, each spelled as single bytes
    until the vocabulary is full:
        take the pair of neighbouring tokens that occurs most often
        add the token it spells, and join the pair wherever it occurs

Of pairs that occur equally often, the greatest wins: pairs compare as byte strings, left token first, then the right.
Special tokens are taken out before counting, so they neither merge nor count. The loop is fast enough because a merge
changes few counts: only words that hold the pair are touched, and a heap finds the next best pair.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

from transformerlm.tokenizer.io import read_text_chunks
from transformerlm.tokenizer.pretokenize import (
    Pretokenizer,
    SpecialTokenFinder,
    explain_lone_surrogate,
    stable_blocks,
)
from transformerlm.tokenizer.tokenizer import Tokenizer
from transformerlm.tokenizer.vocabulary import BYTE_ORDER, SINGLE_BYTES, Merge, Vocabulary, check_special_tokens

Progress = Callable[[int, int], None]
"""Called often with (bytes read so far, merges learned so far)."""

Pair = tuple[int, int]

_COMPLEMENT = bytes(255 - byte for byte in range(256))


def train_bpe(
    documents: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    pattern: str = "gpt2",
    on_progress: Progress | None = None,
) -> Tokenizer:
    """Learn a tokenizer of exactly `vocab_size` tokens: 256 bytes, the merges, the special tokens.

    Each document is a text of its own: no pretoken reaches from one into the next. They are read once, one at a time.
    Raises ValueError if `vocab_size` leaves no room for bytes and special tokens, if a special token is empty or given
    twice, if the documents hold no text, or if they hold too little to learn so many tokens.
    """
    check_special_tokens(special_tokens)
    smallest = len(SINGLE_BYTES) + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size {vocab_size} is too small for 256 bytes and {len(special_tokens)} special tokens; "
            f"set it to {smallest} or more"
        )
    progress = on_progress or _ignore_progress
    bytes_read, word_counts = _count_pretokens(documents, special_tokens, pattern, progress)
    if not word_counts:
        raise ValueError("the corpus holds no text besides special tokens; check the input files and the text field")
    merges = []
    for merge in _learn_merges(word_counts, vocab_size - len(special_tokens)):
        merges.append(merge)
        progress(bytes_read, len(merges))
    vocabulary = Vocabulary.from_merges(merges, special_tokens, pattern)
    if len(vocabulary) < vocab_size:
        raise ValueError(
            f"the corpus is too small for {vocab_size} tokens: after {len(vocabulary)} every pretoken is one token; "
            f"set vocab_size to {len(vocabulary)} or add text"
        )
    return Tokenizer(vocabulary)


def train_bpe_on_files(
    paths: Iterable[Path | str],
    vocab_size: int,
    special_tokens: Sequence[str],
    pattern: str = "gpt2",
    on_progress: Progress | None = None,
) -> Tokenizer:
    """Learn a tokenizer from UTF-8 text files of any size, each one document; see train_bpe.

    Raises ValueError also if a file cannot be read or is not UTF-8.
    """
    check_special_tokens(special_tokens)
    pretokenizer, specials = Pretokenizer(pattern), SpecialTokenFinder(special_tokens)
    blocks = (block for path in paths for block in stable_blocks(read_text_chunks(Path(path)), pretokenizer, specials))
    return train_bpe(blocks, vocab_size, special_tokens, pattern, on_progress)


def _ignore_progress(bytes_read: int, merges_learned: int) -> None:
    pass


def _count_pretokens(
    documents: Iterable[str], special_tokens: Sequence[str], pattern: str, progress: Progress
) -> tuple[int, Counter[str]]:
    """Return the bytes read and how often each distinct pretoken occurs; memory grows with the latter only."""
    pretokenizer, specials = Pretokenizer(pattern), SpecialTokenFinder(special_tokens)
    bytes_read, counts = 0, Counter()
    for number, document in enumerate(documents, start=1):
        try:
            bytes_read += len(document.encode())
        except UnicodeEncodeError:
            raise ValueError(f"document {number}: {explain_lone_surrogate(document)}") from None
        for segment, is_special in specials.segments(document):
            if not is_special:
                counts.update(pretokenizer.split(segment))
        progress(bytes_read, 0)
    return bytes_read, counts


def _learn_merges(word_counts: Mapping[str, int], num_ordinary_tokens: int) -> Iterator[Merge]:
    """Yield merges, the most frequent first, until there are so many tokens or no pair is left."""
    corpus = _PairCounts(word_counts)
    while len(corpus.tokens) < num_ordinary_tokens:
        pair = corpus.pop_best_pair()
        if pair is None:
            return
        corpus.merge(pair)
        left, right = pair
        yield corpus.tokens[left], corpus.tokens[right]


class _PairCounts:
    """The distinct words of a corpus as token ids, and the counts of neighbouring pairs, kept true as pairs merge."""

    def __init__(self, word_counts: Mapping[str, int]):
        self.tokens: list[bytes] = list(SINGLE_BYTES)
        self._descending_key = [_descending_key(token) for token in self.tokens]
        byte_ids = [BYTE_ORDER.index(byte) for byte in range(256)]
        self._words = [[byte_ids[byte] for byte in word.encode()] for word in word_counts]
        self._word_counts = list(word_counts.values())
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
