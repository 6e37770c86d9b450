"""From records to arrays of integers, ahead of time and in parallel, and what to do with records that are broken.

The arrays come in the order of the records, however many workers there are, so the number of workers changes no batch
and may differ from session to session. Records that were read ahead are part of the state.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from trainkit.data.documents import BadRecord, Record, Records

Array = np.ndarray
"""[length] of any integer type."""
Encode = Callable[[Any], Array]
"""Payload -> array; raises ValueError if the payload is broken."""
OnBadRecord = Literal["error", "skip"]

CHUNK_RECORDS = 32
REPORTED_RECORDS = 10
HOPELESS_RECORDS = 1000


class BadRecords:
    """Count and report records that cannot be used; skip them, or stop at the first."""

    def __init__(self, on_bad_record: OnBadRecord = "error", report: Callable[[str], None] = lambda _: None) -> None:
        """report: is given one line for each of the first records, then at 100, 1000, 10000, ..."""
        self.on_bad_record, self.report = on_bad_record, report
        self.count = 0

    def add(self, place: str, reason: str) -> None:
        """Take note of one; raises ValueError naming it unless it may be skipped."""
        if self.on_bad_record == "error":
            raise ValueError(f'{place}: {reason}; mend it, or set on_bad_record = "skip" to go on without such records')
        self.count += 1
        if self.count <= REPORTED_RECORDS:
            more = "; of further ones only the number is told" if self.count == REPORTED_RECORDS else ""
            self.report(f"skipped a malformed record: {place}: {reason}{more}")
        elif self.count >= 100 and set(str(self.count)[1:]) == {"0"} and str(self.count)[0] == "1":
            self.report(f"skipped {self.count} malformed records so far, the last one: {place}: {reason}")


class _Chunk(NamedTuple):
    records: deque[Record]
    arrays: "Future[deque[Array | BadRecord]]"


class Encoded(Iterator[Array]):
    """Encode the records of a source, in worker threads if there are any."""

    def __init__(
        self, source: Records, encode: Encode, bad_records: BadRecords | None = None, workers: int = 0
    ) -> None:
        """workers: threads; they help as far as `encode` releases Python's lock. 0 encodes in the calling thread."""
        self.source, self.encode, self.workers = source, encode, workers
        self.bad_records = bad_records or BadRecords()
        self.epoch, self.place, self.good = 0, "", 0
        self._replay: deque[Record] = deque()  # read ahead before the state was saved
        self._chunks: deque[_Chunk] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="encode") if workers else None

    def __next__(self) -> Array:
        while True:
            record, array = self._take()
            if isinstance(array, BadRecord):
                self.bad_records.add(record.place, str(array))
                self._refuse_if_hopeless(record, array)
                continue
            self.epoch, self.place, self.good = record.epoch, record.place, self.good + 1
            return array

    def _take(self) -> tuple[Record, Array | BadRecord]:
        """Return the next record with its array, or with what is wrong with it."""
        if self._pool is None:
            record = self._read()
            return record, try_encode(self.encode, record)
        while len(self._chunks) < 2 * self.workers:
            records = self._read_chunk()
            if not records:
                break
            arrays = self._pool.submit(lambda chunk: deque(try_encode(self.encode, each) for each in chunk), [*records])
            self._chunks.append(_Chunk(records, arrays))
        if not self._chunks:
            raise StopIteration
        chunk = self._chunks[0]
        record, array = chunk.records[0], chunk.arrays.result().popleft()
        chunk.records.popleft()
        if not chunk.records:
            self._chunks.popleft()
        return record, array

    def _read(self) -> Record:
        return self._replay.popleft() if self._replay else next(self.source)

    def _read_chunk(self) -> deque[Record]:
        records: deque[Record] = deque()
        while len(records) < CHUNK_RECORDS:
            try:
                records.append(self._read())
            except StopIteration:
                break
        return records

    def _refuse_if_hopeless(self, record: Record, problem: BadRecord) -> None:
        """Stop where skipping would never end: nothing but broken records so far."""
        if self.good == 0 and (record.epoch > 0 or self.bad_records.count >= HOPELESS_RECORDS):
            raise ValueError(
                f"all of the first {self.bad_records.count} records are malformed, the last one: {record.place}: "
                f"{problem}; is this the right corpus, and are format and field right?"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what was read ahead and the source's state."""
        ahead = [*(record for chunk in self._chunks for record in chunk.records), *self._replay]
        return {
            "ahead": [tuple(record) for record in ahead],
            "good": self.good,
            "bad": self.bad_records.count,
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._chunks.clear()
        self._replay = deque(Record(*each) for each in state["ahead"])
        self.good, self.bad_records.count = state["good"], state["bad"]
        self.source.load_state_dict(state["source"])

    def origin(self) -> str:
        """Name the last document."""
        return self.place


def try_encode(encode: Encode, record: Record) -> Array | BadRecord:
    """Return a record's array, or what is wrong with the record."""
    if record.problem:
        return BadRecord(record.problem)
    try:
        return encode(record.payload)
    except ValueError as error:
        return error if isinstance(error, BadRecord) else BadRecord(str(error))
