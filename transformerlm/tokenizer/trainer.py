"""Learn the merges of a vocabulary from text (Sennrich et al. 2016, on bytes as in Radford et al. 2019).

First every distinct pretoken of the corpus is counted, then the merge loop runs on those counts (see learning.py);
so memory grows with the number of different words, not with the corpus. Of pairs that occur equally often, the
greatest wins: pairs compare as byte strings, left token first, then the right. Special tokens are taken out before
counting, so they neither merge nor count.

    tokenizer = train_bpe(texts, 8192, ["<|endoftext|>"])

    trainer = BpeTrainer(BpeSettings(8192, ("<|endoftext|>",), threads=4))
    tokenizer = trainer.train_on_files(["corpus.txt"])
    print(trainer.report)
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from transformerlm.tokenizer.backend import Backend, check_backend
from transformerlm.tokenizer.blocks import BLOCK_BYTES, Block, block_of, file_blocks
from transformerlm.tokenizer.learning import learn_merges
from transformerlm.tokenizer.pretokenize import Pretokenizer, SpecialTokenFinder, encode_utf8
from transformerlm.tokenizer.streaming import map_in_order
from transformerlm.tokenizer.tokenizer import Tokenizer
from transformerlm.tokenizer.vocabulary import SINGLE_BYTES, Merge, Vocabulary, check_special_tokens

Progress = Callable[[int, int], None]
"""Called often with (bytes read so far, merges learned so far)."""

WORTH_LOADING_BYTES = 2**20
WORTH_COMPILING_BYTES = 2**23


@dataclass(frozen=True, slots=True)
class BpeSettings:
    """What to learn, and how."""

    vocab_size: int
    """256 bytes, the merges, the special tokens."""
    special_tokens: Sequence[str]
    pattern: str = "gpt2"
    backend: Backend = "auto"
    """"python", "numba", or "auto" for whichever suits the size of the corpus; the merges are the same."""
    threads: int = 1
    """How many count pretokens at a time, with the compiled backend."""
    hash_corpus: bool = False
    """Whether the report is to hold the corpus's SHA-256."""


@dataclass(slots=True)
class TrainingReport:
    """What a training has seen and done."""

    bytes_read: int = 0
    documents: int = 0
    """Texts of an iterable, or files."""
    words: int = 0
    """Pretokens counted."""
    distinct_words: int = 0
    tokens: int = 0
    """How many tokens of the finished vocabulary the corpus takes, special tokens not counted."""
    word_bytes: int = 0
    """How many bytes those tokens stand for."""
    reading_seconds: float = 0.0
    merging_seconds: float = 0.0
    corpus_sha256: str | None = None
    """Of all bytes read, one document after the other."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """Documents, or a part of one, behind each other."""

    block: Block
    ends: list[int]
    """Where each ends in the block."""
    num_documents: int
    source: str = ""
    """What to say before an error: the file's name."""

    def decode(self) -> Iterator[str]:
        """Yield the documents; raises ValueError if they are not UTF-8."""
        if len(self.ends) == 1:
            try:
                yield self.block.decode()
            except ValueError as error:
                raise ValueError(f"{self.source}{error}; convert it to UTF-8") from None
            return
        for begin, end in pairwise([0, *self.ends]):
            yield str(self.block.view[begin:end], "utf-8")


@dataclass
class BpeTrainer:
    """Learn one tokenizer; `report` tells about it afterwards."""

    settings: BpeSettings
    on_progress: Progress | None = None
    report: TrainingReport = field(default_factory=TrainingReport)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises ValueError if `vocab_size` leaves no room for bytes and special tokens, if a special token is empty or
        given twice, or for an unknown pattern or backend.
        """
        settings = self.settings
        check_special_tokens(settings.special_tokens)
        self._pretokenizer = Pretokenizer(settings.pattern)
        self._specials = SpecialTokenFinder(settings.special_tokens)
        check_backend(settings.backend, self._pretokenizer.pattern)
        smallest = len(SINGLE_BYTES) + len(settings.special_tokens)
        if settings.vocab_size < smallest:
            raise ValueError(
                f"vocab_size {settings.vocab_size} is too small for 256 bytes and {len(settings.special_tokens)} "
                f"special tokens; set it to {smallest} or more"
            )

    def train(self, documents: Iterable[str]) -> Tokenizer:
        """Learn from documents, read once, one at a time; no pretoken reaches from one into the next.

        Raises ValueError if they hold no text, too little to learn so many tokens, or a lone surrogate.
        """
        return self._train(self._pack(documents))

    def train_on_files(self, paths: Iterable[Path | str]) -> Tokenizer:
        """Learn from UTF-8 text files of any size; special tokens in them separate documents.

        Raises ValueError also if a file cannot be read or is not UTF-8.
        """
        return self._train(self._read_files(map(Path, paths)))

    def _train(self, texts: Iterable[_Texts]) -> Tokenizer:
        started = time.perf_counter()
        counts = self._count(self._watch(texts))
        self.report.reading_seconds = time.perf_counter() - started
        if not self.report.words:
            raise ValueError(
                "the corpus holds no text besides special tokens; check the input files and the text field"
            )
        merges = self._learn(counts)
        self.report.merging_seconds = time.perf_counter() - started - self.report.reading_seconds
        return Tokenizer(self._make_vocabulary(merges), self.settings.backend)

    def _pack(self, documents: Iterable[str]) -> Iterator[_Texts]:
        """Gather documents, so that there is enough to do for one call of a kernel."""
        gathered: list[bytes] = []
        num_bytes = 0
        for number, document in enumerate(documents, start=1):
            try:
                gathered.append(encode_utf8(document))
            except ValueError as error:
                raise ValueError(f"document {number}: {error}") from None
            num_bytes += len(gathered[-1])
            if num_bytes >= BLOCK_BYTES:
                yield _join(gathered)
                gathered, num_bytes = [], 0
        yield _join(gathered)

    def _read_files(self, paths: Iterable[Path]) -> Iterator[_Texts]:
        for path in paths:
            for number, block in enumerate(file_blocks(path, self._pretokenizer, self._specials)):
                yield _Texts(block, [block.size], num_documents=int(number == 0), source=f"{path}: ")

    def _watch(self, texts: Iterable[_Texts]) -> Iterator[_Texts]:
        """Hand texts on, and note in the report what went by."""
        digest = hashlib.sha256()
        self.report = TrainingReport()
        for text in texts:
            self.report.bytes_read += text.block.size
            self.report.documents += text.num_documents
            if self.settings.hash_corpus:
                digest.update(text.block.view)
            self._show(0)
            yield text
        self.report.corpus_sha256 = digest.hexdigest() if self.settings.hash_corpus else None

    def _show(self, merges_learned: int) -> None:
        if self.on_progress is not None:
            self.on_progress(self.report.bytes_read, merges_learned)

    def _count(self, texts: Iterator[_Texts]) -> Counter[str] | np.ndarray:
        """Count pretokens, in Python if the corpus turns out to be small; kernels return them laid out for learning."""
        if self.settings.backend == "python" or self._pretokenizer.pattern != "gpt2":
            return self._count_in_python(texts)
        held = []
        if self.settings.backend == "auto":
            for text in texts:
                held.append(text)
                if self._is_worth_kernels():
                    break
            else:
                return self._count_in_python(held)
        return self._count_with_kernels(chain(held, texts))

    def _is_worth_kernels(self) -> bool:
        """Tell whether what was read so far takes Python longer than the kernels take to load, or to compile."""
        if self.settings.backend != "auto" or self.report.bytes_read < WORTH_LOADING_BYTES:
            return self.settings.backend == "numba"
        try:
            from transformerlm.tokenizer.fast_learning import training_is_compiled
        except ImportError:  # no numba on this machine
            return False
        return training_is_compiled() or self.report.bytes_read >= WORTH_COMPILING_BYTES

    def _count_in_python(self, texts: Iterable[_Texts]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text in texts:
            for document in text.decode():
                for segment, is_special in self._specials.segments(document):
                    if not is_special:
                        counts.update(self._pretokenizer.split(segment))
        self.report.words, self.report.distinct_words = counts.total(), len(counts)
        self.report.word_bytes = sum(len(word.encode()) * count for word, count in counts.items())
        return counts

    def _count_with_kernels(self, texts: Iterable[_Texts]) -> np.ndarray:
        """Count pretokens in threads, each with a table of its own; returns what MergeLearner wants."""
        from transformerlm.tokenizer.fast_learning import WordCounter, prepare_training
        from transformerlm.tokenizer.segments import cut_documents

        prepare_training()
        counters = [WordCounter() for _ in range(self.settings.threads)]
        idle: SimpleQueue[WordCounter] = SimpleQueue()
        for counter in counters:
            idle.put(counter)

        def count(text: _Texts) -> None:
            counter = idle.get()
            try:
                counter.count(text.block, cut_documents(text.block, text.ends, self._specials))
            except ValueError as error:
                raise ValueError(f"{text.source}{error}; convert it to UTF-8") from None
            finally:
                idle.put(counter)

        for _ in map_in_order(count, texts, self.settings.threads):
            pass
        total, *others = counters
        while others:
            total.absorb(others.pop())
        report = self.report
        report.words, report.distinct_words, report.word_bytes = total.words, total.distinct_words, total.word_bytes
        return total.lay_out()

    def _learn(self, counts: Counter[str] | np.ndarray) -> list[Merge]:
        max_merges = self.settings.vocab_size - len(SINGLE_BYTES) - len(self.settings.special_tokens)
        self.report.tokens = self.report.word_bytes
        if isinstance(counts, Counter) and not self._is_worth_kernels():
            merges = []
            for merge, saved in learn_merges(counts, max_merges):
                merges.append(merge)
                self.report.tokens = self.report.word_bytes - saved
                self._show(len(merges))
            return merges
        from transformerlm.tokenizer.fast_learning import MergeLearner, lay_out_counts, prepare_training

        prepare_training()
        learner = MergeLearner(lay_out_counts(counts) if isinstance(counts, Counter) else counts, max_merges)
        for merges_learned in learner.learn():
            self._show(merges_learned)
        self.report.tokens = self.report.word_bytes - learner.tokens_saved
        return learner.merges()

    def _make_vocabulary(self, merges: Sequence[Merge]) -> Vocabulary:
        settings = self.settings
        vocabulary = Vocabulary.from_merges(merges, settings.special_tokens, settings.pattern)
        if len(vocabulary) < settings.vocab_size:
            raise ValueError(
                f"the corpus is too small for {settings.vocab_size} tokens: after {len(vocabulary)} every pretoken is "
                f"one token; set vocab_size to {len(vocabulary)} or add text"
            )
        return vocabulary


def train_bpe(
    documents: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str],
    pattern: str = "gpt2",
    on_progress: Progress | None = None,
) -> Tokenizer:
    """Learn a tokenizer of exactly `vocab_size` tokens from documents; see BpeTrainer.train."""
    return BpeTrainer(BpeSettings(vocab_size, special_tokens, pattern), on_progress).train(documents)


def train_bpe_on_files(
    paths: Iterable[Path | str],
    vocab_size: int,
    special_tokens: Sequence[str],
    pattern: str = "gpt2",
    on_progress: Progress | None = None,
) -> Tokenizer:
    """Learn a tokenizer of exactly `vocab_size` tokens from files; see BpeTrainer.train_on_files."""
    return BpeTrainer(BpeSettings(vocab_size, special_tokens, pattern), on_progress).train_on_files(paths)


def _join(documents: Sequence[bytes]) -> _Texts:
    return _Texts(block_of(b"".join(documents)), list(accumulate(map(len, documents))), len(documents))
