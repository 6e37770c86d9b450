"""Read Megatron-LM's indexed datasets: prefix.bin (tokens) and prefix.idx (where each sequence lies).

prefix.idx, little-endian
  "MMIDIDX\\0\\0"            9 bytes
  u64 version = 1
  u8  type code             1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 6 f64, 7 f32, 8 u16
  u64 sequences
  u64 length of the document index: documents + 1
  i32 lengths   [sequences]             in tokens
  i64 pointers  [sequences]             in bytes into prefix.bin
  i64 document index [documents + 1]    first sequence of each document, starting at 0
"""

import struct
from pathlib import Path

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
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


class MegatronIndexedDataset:
    """Documents of a prefix.bin / prefix.idx pair, memory-mapped."""

    def __init__(self, prefix: Path | str) -> None:
        """Open both files; raises ValueError naming the file and what is wrong with it."""
        self.prefix = str(prefix)
        index_path, tokens_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        for path in (index_path, tokens_path):
            if not path.is_file():
                raise ValueError(f"{path}: no such file; a Megatron prefix names a .bin and an .idx beside each other")
        self.lengths, self.pointers, self.document_index, self.dtype = _read_index(index_path)
        needed = 0
        if len(self.lengths):
            needed = int((self.pointers + self.lengths.astype(np.int64) * self.dtype.itemsize).max())
        size = tokens_path.stat().st_size
        if size < needed:
            raise ValueError(f"{tokens_path}: holds {size} bytes, its index refers to {needed}; the file is truncated")
        self.tokens = np.memmap(tokens_path, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.document_index) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        """Return one document's tokens: [length] in the file's type."""
        first, last = int(self.document_index[document]), int(self.document_index[document + 1])
        pieces = [self._sequence(index) for index in range(first, last)]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=self.dtype)

    def _sequence(self, index: int) -> np.ndarray:
        start = int(self.pointers[index])
        stop = start + int(self.lengths[index]) * self.dtype.itemsize
        return self.tokens[start:stop].view(self.dtype)


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.dtype]:
    data = path.read_bytes()
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ValueError(f"{path}: not a Megatron index (it does not begin with MMIDIDX)")
    _, version, code, sequences, documents = HEADER.unpack_from(data)
    if version != 1:
        raise ValueError(f"{path}: index version {version}; only version 1 is known")
    if code not in DTYPES:
        raise ValueError(f"{path}: unknown token type code {code}; known: {sorted(DTYPES)}")
    if np.issubdtype(DTYPES[code], np.floating):
        raise ValueError(f"{path}: holds {DTYPES[code].name} numbers, not token ids")
    expected = HEADER.size + 12 * sequences + 8 * documents
    if len(data) < expected:
        raise ValueError(f"{path}: {len(data)} bytes long, its header announces {expected}; the file is truncated")
    lengths = np.frombuffer(data, "<i4", sequences, HEADER.size)
    pointers = np.frombuffer(data, "<i8", sequences, HEADER.size + 4 * sequences)
    document_index = np.frombuffer(data, "<i8", documents, HEADER.size + 12 * sequences)
    return lengths, pointers, document_index, DTYPES[code]
