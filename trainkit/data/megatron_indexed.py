"""Read and write Megatron-LM's indexed datasets: prefix.bin (values) and prefix.idx (where each sequence lies).

prefix.idx, little-endian
  "MMIDIDX\\0\\0"            9 bytes
  u64 version = 1
  u8  type code             1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 6 f64, 7 f32, 8 u16
  u64 sequences
  u64 length of the document index: documents + 1
  i32 lengths   [sequences]             in values
  i64 pointers  [sequences]             in bytes into prefix.bin
  i64 document index [documents + 1]    first sequence of each document, starting at 0
  i8  modes     [sequences]             only in multimodal files
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPES = {
    1: np.dtype("<u1"),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
HEADER = struct.Struct("<9sQBQQ")
BLOCK = 2**20
"""Sequences whose pointers are computed at a time."""


class MegatronIndexedDataset:
    """Documents of a prefix.bin / prefix.idx pair, memory-mapped."""

    def __init__(self, prefix: Path | str) -> None:
        """Open both files; raises ValueError naming the file and what is wrong with it."""
        self.prefix = str(prefix)
        index_path, values_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        for path in (index_path, values_path):
            if not path.is_file():
                raise ValueError(f"{path}: no such file; a Megatron prefix names a .bin and an .idx beside each other")
        index = _read_index(index_path)
        self.lengths, self.pointers, self.document_index, self.modes, self.dtype = index
        ends = self.pointers + self.lengths.astype(np.int64) * self.dtype.itemsize
        size, needed = values_path.stat().st_size, int(ends.max(initial=0))
        if size < needed:
            raise ValueError(f"{values_path}: holds {size} bytes, its index refers to {needed}; the file is truncated")
        mapped = np.memmap(values_path, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)
        self.values = np.asarray(mapped)  # the same memory; slicing a plain array is several times quicker
        totals = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.document_lengths = np.diff(totals[self.document_index])

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.document_index) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        """Return one document: [length] in the file's type."""
        first, last = int(self.document_index[document]), int(self.document_index[document + 1])
        if last == first + 1:
            return self._sequence(first)
        pieces = [self._sequence(index) for index in range(first, last)]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=self.dtype)

    def _sequence(self, index: int) -> np.ndarray:
        start = int(self.pointers[index])
        stop = start + int(self.lengths[index]) * self.dtype.itemsize
        return self.values[start:stop].view(self.dtype)


class _Index(NamedTuple):
    lengths: np.ndarray
    pointers: np.ndarray
    document_index: np.ndarray
    modes: np.ndarray | None
    dtype: np.dtype


def _read_index(path: Path) -> _Index:
    size = path.stat().st_size
    data = np.memmap(path, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)
    header = data[: HEADER.size].tobytes()
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise ValueError(f"{path}: not a Megatron index (it does not begin with MMIDIDX)")
    _, version, code, sequences, documents = HEADER.unpack(header)
    if version != VERSION:
        raise ValueError(f"{path}: index version {version}; only version {VERSION} is known")
    if code not in DTYPES:
        raise ValueError(f"{path}: unknown type code {code}; known: {sorted(DTYPES)}")
    expected = HEADER.size + 12 * sequences + 8 * documents
    if size not in (expected, expected + sequences):
        what = "the file is truncated" if size < expected else "it ends with something else"
        raise ValueError(f"{path}: {size} bytes long, its header announces {expected}; {what}")
    lengths = np.frombuffer(data, "<i4", sequences, HEADER.size)
    pointers = np.frombuffer(data, "<i8", sequences, HEADER.size + 4 * sequences)
    document_index = np.frombuffer(data, "<i8", documents, HEADER.size + 12 * sequences)
    has_modes = sequences > 0 and size > expected
    modes = np.frombuffer(data, "<i1", sequences, expected) if has_modes else None
    _check_index(path, lengths, pointers, document_index)
    return _Index(lengths, pointers, document_index, modes, DTYPES[code])


def _check_index(path: Path, lengths: np.ndarray, pointers: np.ndarray, document_index: np.ndarray) -> None:
    """Raise ValueError if following the index would leave its bounds."""
    is_damaged = min(lengths.min(initial=0), pointers.min(initial=0)) < 0
    is_damaged |= len(document_index) == 0 or document_index[0] != 0 or document_index[-1] != len(lengths)
    if is_damaged or np.any(np.diff(document_index) < 0):
        raise ValueError(f"{path}: lengths, pointers and documents contradict one another; the file is damaged")


class WriterPosition(NamedTuple):
    """How much a writer has made durable."""

    value_bytes: int = 0
    sequences: int = 0
    documents: int = 0


class MegatronIndexedWriter:
    """Write a pair of files in constant memory; what was synced survives a kill and can be continued.

    Until `finish` the values lie in prefix.bin.partial, and lengths and documents in two more files beside it.
    """

    def __init__(self, prefix: Path | str, dtype: np.dtype | type, position: WriterPosition | None = None) -> None:
        """position: continue there, as `sync` returned it; what was written behind it is cut off."""
        self.prefix, self.dtype = str(prefix), np.dtype(dtype).newbyteorder("<")
        codes = [code for code, known in DTYPES.items() if known == self.dtype]
        if not codes:
            raise ValueError(
                f"type {self.dtype} has no Megatron code; use one of {', '.join(map(str, DTYPES.values()))}"
            )
        self.code = codes[0]
        self.position = position or WriterPosition()
        sizes = (self.position.value_bytes, 4 * self.position.sequences, 8 * self.position.documents)
        names = (f"{self.prefix}.bin.partial", f"{self.prefix}.lengths.partial", f"{self.prefix}.documents.partial")
        self.paths = [Path(name) for name in names]
        finished = Path(f"{self.prefix}.bin")
        if position is not None and finished.exists() and not self.paths[0].exists():
            finished.replace(self.paths[0])  # killed in the middle of `finish`
        self._values, self._lengths, self._documents = map(_open_at, self.paths, sizes)

    def add_document(self, values: np.ndarray, lengths: Iterable[int] | None = None) -> None:
        """Append one document.

        values: [length].  lengths: of the sequences it is made of; None for a single one.
        Raises ValueError if a value does not fit the type: it would come back as another one.
        """
        sequences = np.asarray([len(values)] if lengths is None else list(lengths), dtype="<i4")
        assert sequences.sum() == len(values), "lengths must add up to the document"
        self._write(values, sequences, np.asarray([self.position.sequences + len(sequences)], dtype="<i8"))

    def add_documents(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Append several documents of one sequence each, end to end in `values` [total]."""
        ends = self.position.sequences + np.arange(1, len(lengths) + 1, dtype="<i8")
        self._write(values, lengths.astype("<i4"), ends)

    def _write(self, values: np.ndarray, lengths: np.ndarray, document_ends: np.ndarray) -> None:
        stored = values.astype(self.dtype, copy=False)
        if stored.dtype != values.dtype and not np.array_equal(stored, values):
            wrong = values[stored != values][0]
            raise ValueError(f"{self.prefix}.bin: {wrong} does not fit type {self.dtype.name}; write a wider type")
        self._values.write(np.ascontiguousarray(stored).data)
        self._lengths.write(lengths.tobytes())
        self._documents.write(document_ends.tobytes())
        value_bytes, sequences, documents = self.position
        self.position = WriterPosition(
            value_bytes + stored.nbytes, sequences + len(lengths), documents + len(document_ends)
        )

    def sync(self) -> WriterPosition:
        """Make durable what was written; returns the position to continue from."""
        for file in (self._values, self._lengths, self._documents):
            file.flush()
            os.fsync(file.fileno())
        return self.position

    def finish(self) -> None:
        """Write prefix.idx and give both files their names, the index last: without it the pair is not there."""
        self.sync()
        self.close()
        values, lengths, documents = self.paths
        index = Path(f"{self.prefix}.idx.partial")
        with index.open("wb") as file:
            self._write_index(file)
            file.flush()
            os.fsync(file.fileno())
        values.replace(f"{self.prefix}.bin")
        index.replace(f"{self.prefix}.idx")
        lengths.unlink()
        documents.unlink()

    def _write_index(self, file: BinaryIO) -> None:
        _, sequences, documents = self.position
        file.write(HEADER.pack(MAGIC, VERSION, self.code, sequences, documents + 1))
        _, lengths_path, documents_path = self.paths
        lengths = np.memmap(lengths_path, "<i4", "r") if sequences else np.zeros(0, "<i4")
        file.write(lengths.data)
        start = 0
        for first in range(0, sequences, BLOCK):
            ends = start + np.cumsum(lengths[first : first + BLOCK], dtype="<i8") * self.dtype.itemsize
            file.write(np.concatenate([[start], ends[:-1]]).astype("<i8").data)
            start = int(ends[-1])
        file.write(np.zeros(1, "<i8").data)
        file.write((np.memmap(documents_path, "<i8", "r") if documents else np.zeros(0, "<i8")).data)

    def close(self) -> None:
        """Close the files without finishing: they can be continued."""
        for file in (self._values, self._lengths, self._documents):
            file.close()


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open a file for appending behind its first `size` bytes; raises ValueError if it is shorter."""
    file = path.open("r+b" if size else "wb")
    if path.stat().st_size < size:
        file.close()
        raise ValueError(f"{path}: shorter than it was; delete what was prepared so far and start again")
    file.truncate(size)
    file.seek(size)
    return file
