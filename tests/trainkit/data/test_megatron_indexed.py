"""Megatron files written here byte by byte, and damaged ones."""

import struct

import numpy as np
import pytest

from trainkit.data.megatron_indexed import DTYPES, MegatronIndexedDataset

DOCUMENTS = [[[1, 2, 3], [4]], [[5, 6]], []]  # documents of sequences


@pytest.fixture
def write_pair(tmp_path):
    def write(code=8, version=1, magic=b"MMIDIDX\x00\x00"):
        sequences = [sequence for document in DOCUMENTS for sequence in document]
        lengths = [len(sequence) for sequence in sequences]
        width = DTYPES.get(code, np.dtype("u2")).itemsize
        pointers = np.cumsum([0, *lengths[:-1]]) * width
        index = np.cumsum([0] + [len(document) for document in DOCUMENTS])
        header = magic + struct.pack("<QBQQ", version, code, len(sequences), len(index))
        arrays = np.array(lengths, "<i4").tobytes() + pointers.astype("<i8").tobytes() + index.astype("<i8").tobytes()
        (tmp_path / "corpus.idx").write_bytes(header + arrays)
        flat = [token for sequence in sequences for token in sequence]
        (tmp_path / "corpus.bin").write_bytes(np.array(flat, DTYPES.get(code, "<u2")).tobytes())
        return tmp_path / "corpus"

    return write


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 8])
def test_documents_join_their_sequences(write_pair, code):
    dataset = MegatronIndexedDataset(write_pair(code))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [[1, 2, 3, 4], [5, 6], []]
    assert dataset[0].dtype == DTYPES[code]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"code": 9}, "unknown token type code 9"),
        ({"code": 7}, "not token ids"),
        ({"version": 2}, "index version 2; only version 1"),
        ({"magic": b"SOMETHING"}, "not a Megatron index"),
    ],
)
def test_foreign_indexes_are_refused(write_pair, damage, message):
    with pytest.raises(ValueError, match=message):
        MegatronIndexedDataset(write_pair(**damage))


@pytest.mark.parametrize(("suffix", "message"), [(".bin", "its index refers to 12"), (".idx", "its header announces")])
def test_truncated_files_are_refused(write_pair, suffix, message):
    path = write_pair().with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=message):
        MegatronIndexedDataset(path.with_suffix(""))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.idx: no such file"):
        MegatronIndexedDataset(tmp_path / "nothing")
