"""Encode a corpus once, in many processes, into Megatron files that are there whole or not at all.

    this process            read records -> chunks            -> write in the order of the records -> sync now and then
    worker processes                          encode a chunk

Only a bounded number of chunks is on its way, so memory does not grow with the corpus. After every sync, progress.json
says what is durable and where reading goes on: a killed run is continued there, and ends with the same bytes.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainkit.data.documents import Record, Records
from trainkit.data.encoding import BadRecords
from trainkit.data.megatron_indexed import MegatronIndexedWriter, WriterPosition
from trainkit.data.worker_pool import WorkerPool

CHUNK_BYTES = 2**21
CHUNK_RECORDS = 2**14
PROGRESS_FILE = "progress.json"


@dataclass(slots=True)
class Counts:
    """What has been written of one split."""

    documents: int = 0
    values: int = 0
    text_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some documents, encoded: what a worker sends back."""

    values: list[np.ndarray]
    """Per split: [total], end to end."""
    lengths: list[np.ndarray]
    """Per split: [documents]."""
    text_bytes: list[int]
    bad: dict[int, str]
    """Why payloads were not encoded, by their place in the chunk."""


Encode = Callable[[Sequence[Any]], Chunk]
"""Encodes payloads of records; these alone travel to the workers, because a list of bytes travels quickly."""


class Sent(NamedTuple):
    """A chunk on its way."""

    encoded: Future[Chunk]
    records: list[Record]
    reader: tuple[int, dict[str, Any]]
    """The number of records up to its end, and the source's position there."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a preparation is written."""

    folder: Path
    names: Sequence[str]
    """Of the splits' files, without .bin or .idx."""
    dtype: np.dtype
    sync_bytes: int = 64 * 2**20
    """Text between two syncs."""


@dataclass(slots=True)
class Progress:
    """What is durable."""

    records: int = 0
    """Read, broken ones included."""
    bad_records: int = 0
    is_read: bool = False
    source: dict[str, Any] | None = None
    counts: list[Counts] = field(default_factory=list)
    positions: list[WriterPosition] = field(default_factory=list)

    @property
    def text_bytes(self) -> int:
        """Text encoded so far, over all splits."""
        return sum(counts.text_bytes for counts in self.counts)


class Preparation:
    """Read, encode and write; `run` ends with the finished pairs of files in the target's folder."""

    def __init__(self, target: Target, make_encode: Callable[[], Encode], bad_records: BadRecords) -> None:
        """make_encode: called once in every worker process, so it must be fit to travel there (pickle)."""
        self.target, self.make_encode, self.bad_records = target, make_encode, bad_records
        self.progress = self._read_progress()
        bad_records.count = self.progress.bad_records

    def run(self, records: Records, workers: int, on_progress: Callable[[Progress], None], limit: int | None) -> None:
        """Prepare the records, the first `limit` of them if it is given.

        Raises ValueError for a broken record that may not be skipped; WorkerError if a worker is killed.
        """
        self.target.folder.mkdir(parents=True, exist_ok=True)
        if not self.progress.is_read:
            if self.progress.source is not None:
                records.load_state_dict(self.progress.source)
            self._encode_all(records, workers, on_progress, limit)
        self._finish()

    def _encode_all(
        self, records: Records, workers: int, on_progress: Callable[[Progress], None], limit: int | None
    ) -> None:
        writers = [self._open_writer(index) for index in range(len(self.target.names))]
        synced_bytes = self.progress.text_bytes
        pool = WorkerPool(self.make_encode, workers)
        try:
            for sent in self._encode_in_order(pool, records, workers, limit):
                self._write(writers, sent)
                self.progress.records, self.progress.source = sent.reader
                on_progress(self.progress)
                if self.progress.text_bytes - synced_bytes >= self.target.sync_bytes:
                    self._sync(writers)
                    synced_bytes = self.progress.text_bytes
            self.progress.is_read = True
            self._sync(writers)
        finally:
            pool.close()
            for writer in writers:
                writer.close()

    def _encode_in_order(self, pool: WorkerPool, records: Records, workers: int, limit: int | None) -> Iterator[Sent]:
        """Yield chunks in the order of the records; the first of them may still be under way."""
        waiting: deque[Sent] = deque()
        count = self.progress.records
        while True:
            chunk = read_chunk(records, CHUNK_RECORDS if limit is None else min(CHUNK_RECORDS, limit - count))
            count += len(chunk)
            if chunk:
                encoded = pool.submit([record.payload for record in chunk if not record.problem])
                waiting.append(Sent(encoded, chunk, (count, records.state_dict())))
            while waiting and (not chunk or len(waiting) > 2 * workers):
                yield waiting.popleft()
            if not chunk:
                return

    def _write(self, writers: Sequence[MegatronIndexedWriter], sent: Sent) -> None:
        chunk = sent.encoded.result()
        for place, reason in broken_records(sent.records, chunk.bad):
            self.bad_records.add(place, reason)
        self.progress.bad_records = self.bad_records.count
        parts = zip(writers, chunk.values, chunk.lengths, chunk.text_bytes, self.progress.counts, strict=True)
        for writer, values, lengths, text_bytes, counts in parts:
            writer.add_documents(values, lengths)
            counts.documents += len(lengths)
            counts.values += len(values)
            counts.text_bytes += text_bytes

    def _sync(self, writers: Sequence[MegatronIndexedWriter]) -> None:
        self.progress.positions = [writer.sync() for writer in writers]
        path = self.target.folder / PROGRESS_FILE
        write_durably(path, json.dumps(asdict(self.progress)))

    def _read_progress(self) -> Progress:
        path, splits = self.target.folder / PROGRESS_FILE, len(self.target.names)
        if not path.exists():
            return Progress(counts=[Counts() for _ in range(splits)], positions=[WriterPosition()] * splits)
        saved = json.loads(path.read_text(encoding="utf-8"))
        saved["counts"] = [Counts(**each) for each in saved["counts"]]
        saved["positions"] = [WriterPosition(*each) for each in saved["positions"]]
        return Progress(**saved)

    def _open_writer(self, split: int) -> MegatronIndexedWriter:
        prefix = self.target.folder / self.target.names[split]
        return MegatronIndexedWriter(prefix, self.target.dtype, self.progress.positions[split])

    def _finish(self) -> None:
        for split, name in enumerate(self.target.names):
            if not (self.target.folder / f"{name}.idx").exists():
                self._open_writer(split).finish()
        for leftover in (*self.target.folder.glob("*.partial"), self.target.folder / PROGRESS_FILE):
            leftover.unlink(missing_ok=True)


def broken_records(records: Sequence[Record], reasons: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Yield place and reason of those that the source could not read or the workers not encode, in order.

    reasons: by index among the records that the source could read.
    """
    index = 0
    for record in records:
        reason = record.problem or reasons.get(index)
        index += not record.problem
        if reason:
            yield record.place, reason


def read_chunk(records: Records, max_records: int) -> list[Record]:
    """Take records up to CHUNK_BYTES of text."""
    chunk: list[Record] = []
    size = 0
    while len(chunk) < max_records and size < CHUNK_BYTES:
        try:
            chunk.append(next(records))
        except StopIteration:
            break
        size += len(chunk[-1].payload) if isinstance(chunk[-1].payload, (str, bytes)) else 0
    return chunk


def write_durably(path: Path, text: str) -> None:
    """Replace a file whole, so that a power cut leaves either the old or the new one."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
