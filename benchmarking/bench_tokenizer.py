"""Throughput, memory and latency of the tokenizer, alone or in turn with others.

Nothing is timed before the results are known to be equal: every way of every library does every task on a part of the
text first, and one whose ids differ from ours is reported, not timed. Then the libraries take turns (A B C A B C ...),
each figure in a fresh process on the same cores, and medians are compared.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarking.tokenizer_differences import describe_difference, explain_merges
from benchmarking.tokenizer_peers import TIE_RULES
from benchmarking.tokenizer_tasks import OURS, read_text, write_tokenizer_json
from benchmarking.tokenizer_worker import Job, Outcome
from transformerlm.tokenizer import END_OF_TEXT, Tokenizer

THREADED_TASKS = ("file", "train")
THREAD_VARIABLES = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CHECK_VOCAB_SIZE = 4096
"""Most tokens to learn from the check text."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    tasks: tuple[str, ...]
    threads: tuple[int, ...]
    rounds: int
    """Fresh processes for each figure."""
    passes: int
    """Repeated passes in each of them."""
    patience_s: float
    """A way whose process takes longer than this is not measured a second time."""
    vocab_size: int
    """Of the vocabulary that `train` learns."""
    backend: str


@dataclass(frozen=True)
class Corpus:
    """The text, its part for the check, and what is made of them."""

    folder: Path
    """Working folder; holds the vocabulary, tokenizer.json, text.txt, check.txt and their ids."""
    name: str
    tokenizer: Tokenizer
    text_bytes: int
    check_bytes: int
    num_tokens: int

    def describe(self) -> str:
        """Name the text, its size and how well it compresses."""
        return f"{self.name}, {self.text_bytes / 1e6:.1f} MB, {self.text_bytes / self.num_tokens:.3f} bytes per token"


@dataclass
class Row:
    """One way of one library to do a task with so many threads, and what was measured."""

    library: str
    task: str
    way: str
    threads: int
    outcomes: list[Outcome] = field(default_factory=list)
    problem: str = ""
    """Why it was not timed, or does not count."""
    remark: str = ""

    @property
    def first_s(self) -> float:
        """Median time of the first pass."""
        return median(outcome.seconds[0] for outcome in self.outcomes)

    @property
    def repeated_s(self) -> float:
        """Median time of a repeated pass."""
        return median(second for outcome in self.outcomes for second in outcome.seconds[1:])

    @property
    def ready_s(self) -> float:
        """Median time to load the library and do the task once on a small text."""
        return median(outcome.ready_seconds for outcome in self.outcomes)

    @property
    def peak_megabytes(self) -> float:
        """Median of the peaks."""
        return median(outcome.peak_megabytes for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        figures: dict[str, Any] = {key: value for key, value in asdict(self).items() if value != ""}
        if self.outcomes:
            figures |= {"first_s_median": self.first_s, "peak_megabytes_median": self.peak_megabytes}
            if len(self.outcomes[0].seconds) > 1:
                figures["repeated_s_median"] = self.repeated_s
        return figures


def prepare_corpus(folder: Path, name: str, text: str, check_bytes: int, tokenizer: Tokenizer) -> Corpus:
    """Write what the workers read."""
    tokenizer.save(folder)
    write_tokenizer_json(folder)
    part = cut_text(text, check_bytes)
    sizes, ids = [], []
    for stem, content in (("text", text), ("check", part)):
        path = folder / f"{stem}.txt"
        path.write_bytes(content.encode())
        sizes.append(path.stat().st_size)
        ids.append(tokenizer.encode_file(path))
        np.save(folder / f"{stem}.npy", ids[-1].astype(np.uint32))
    return Corpus(folder, name, tokenizer, sizes[0], sizes[1], len(ids[0]))


def cut_text(text: str, most_bytes: int) -> str:
    """Return the beginning of a text, up to the last end of a document in so many bytes, or up to so many bytes."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    start = data[:most_bytes].decode(errors="ignore")
    end = start.rfind(END_OF_TEXT)
    return start if end < 0 else start[: end + len(END_OF_TEXT)]


class Benchmark:
    """Runs a plan over a corpus, for the libraries named; ours comes first."""

    def __init__(self, plan: Plan, corpus: Corpus, libraries: Sequence[str]) -> None:
        self.plan, self.corpus, self.libraries = plan, corpus, libraries
        self.on_job: Callable[[str], object] = lambda words: None
        """Called before every process with a few words about it."""

    def check(self) -> list[Row]:
        """Let every way do every task on the check text, and return a row for each; what differs has a problem."""
        tasks_of = {library: self._ways(library) for library in self.libraries}
        rows = [
            Row(library, task, way, 1)
            for task in self.plan.tasks
            for library, tasks in tasks_of.items()
            for way in tasks.get(task, ())
        ]
        for task in self.plan.tasks:
            expected, *others = [row for row in rows if row.task == task]
            content = self._result(expected)
            if expected.problem:
                raise ValueError(f"benchmark: {OURS} cannot {task} the check text: {expected.problem}")
            for row in others:
                self._compare(row, content)
        return rows

    def measure(self, checked: Sequence[Row]) -> Iterator[list[Row]]:
        """Yield the measured rows of each task and number of threads; libraries take turns within them."""
        for task in self.plan.tasks:
            for threads in self.plan.threads if task in THREADED_TASKS else (1,):
                rows = [replace(row, threads=threads, outcomes=[]) for row in checked if row.task == task]
                for _ in range(self.plan.rounds):
                    for row in rows:
                        self._measure_once(row)
                for row in rows[1:]:
                    self._compare_digests(row, rows[0])
                yield rows

    def count_jobs(self) -> int:
        """Return about how many processes `check` and `measure` start, if each library has one way for each task."""
        settings = sum(len(self.plan.threads) if task in THREADED_TASKS else 1 for task in self.plan.tasks)
        return len(self.libraries) * (1 + len(self.plan.tasks) + settings * self.plan.rounds)

    def _measure_once(self, row: Row) -> None:
        is_too_slow = row.outcomes and sum(row.outcomes[-1].seconds) > self.plan.patience_s
        if not row.problem and not is_too_slow:
            passes = 0 if row.task == "train" else self.plan.passes
            if outcome := self._run(row, "text", passes, self.plan.vocab_size):
                row.outcomes.append(outcome)

    def _ways(self, library: str) -> dict[str, list[str]]:
        job = self._job(Row(library, "ways", "", 1), "check", 0, CHECK_VOCAB_SIZE)
        done, path = self._start(job)
        return json.loads(path.read_text(encoding="utf-8")) if done.returncode == 0 else {}

    def _result(self, row: Row) -> bytes:
        """Do a task on the check text and return what came out, spelled as bytes; none if it failed."""
        keep = self.corpus.folder / "kept"
        self._run(row, "check", 0, min(self.plan.vocab_size, CHECK_VOCAB_SIZE), str(keep))
        return b"" if row.problem else keep.read_bytes()

    def _compare(self, row: Row, expected: bytes) -> None:
        content = self._result(row)
        if row.problem or content == expected:
            return
        if row.task != "train":
            row.problem = describe_difference(row.task, content, expected)
            return
        theirs, ours = ([bytes.fromhex(token) for token in json.loads(each)] for each in (content, expected))
        text = read_text(self.corpus.folder / "check.txt")
        row.problem, row.remark = explain_merges(theirs, ours, text, TIE_RULES.get(row.library))

    def _compare_digests(self, row: Row, ours: Row) -> None:
        expected = {outcome.digest for outcome in ours.outcomes}
        if row.outcomes and not row.remark and {outcome.digest for outcome in row.outcomes} != expected:
            row.problem = "its result on the whole text differs from ours"

    def _run(self, row: Row, text: str, passes: int, vocab_size: int, keep: str = "") -> Outcome | None:
        """Run one process for a row; if it fails, the row says why and None is returned."""
        done, path = self._start(self._job(row, text, passes, vocab_size, keep))
        if done.returncode:
            row.problem = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(**{**content, "seconds": tuple(content["seconds"])})

    def _job(self, row: Row, text: str, passes: int, vocab_size: int, keep: str = "") -> Job:
        folder = self.corpus.folder
        return Job(
            library=row.library,
            task=row.task,
            way=row.way,
            folder=str(folder),
            text=str(folder / f"{text}.txt"),
            ids=str(folder / f"{text}.npy"),
            vocab_size=vocab_size,
            id_bytes=self.corpus.tokenizer.id_dtype.itemsize,
            threads=row.threads,
            passes=passes,
            backend=self.plan.backend,
            keep=keep,
        )

    def _start(self, job: Job) -> tuple[subprocess.CompletedProcess[str], Path]:
        self.on_job(f"{job.task} {job.library} {job.way}".rstrip())
        path = self.corpus.folder / "job.json"
        path.write_text(json.dumps(asdict(job)), encoding="utf-8")
        threads = {name: str(job.threads) for name in THREAD_VARIABLES}
        command = [sys.executable, "-m", "benchmarking.tokenizer_worker", str(path)]
        done = subprocess.run(
            command,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": str(job.threads > 1).lower()},
            stdout=subprocess.DEVNULL,  # some libraries chat
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done, path.with_suffix(".outcome")
