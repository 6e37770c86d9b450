"""Megatron files: written down byte by byte from the format's description, written by us, and damaged."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data.megatron_indexed import DTYPES, MegatronIndexedDataset, MegatronIndexedWriter, WriterPosition

# Two documents and an empty one: [[1, 2, 3], [4]], [[5, 6]], [], as uint16. Written by hand from the description.
GOLDEN_IDX = bytes.fromhex(
    "4d4d4944494458 0000"  # MMIDIDX and two zeros
    "0100000000000000"  # version 1
    "08"  # uint16
    "0300000000000000"  # three sequences
    "0400000000000000"  # four entries in the document index
    "03000000 01000000 02000000"  # lengths
    "0000000000000000 0600000000000000 0800000000000000"  # pointers in bytes
    "0000000000000000 0200000000000000 0300000000000000 0300000000000000"  # documents
)
GOLDEN_BIN = bytes.fromhex("0100 0200 0300 0400 0500 0600")


@pytest.fixture
def golden(tmp_path):
    (tmp_path / "golden.idx").write_bytes(GOLDEN_IDX)
    (tmp_path / "golden.bin").write_bytes(GOLDEN_BIN)
    return tmp_path / "golden"


def write(prefix, documents, dtype):
    """Write documents, each a list of sequences."""
    writer = MegatronIndexedWriter(prefix, dtype)
    for sequences in documents:
        flat = np.array([value for sequence in sequences for value in sequence], dtype)
        writer.add_document(flat, [len(sequence) for sequence in sequences])
    writer.finish()


def flatten(sequences):
    return np.array([value for sequence in sequences for value in sequence], np.uint16)


def contents(prefix):
    return tuple(prefix.with_name(f"{prefix.name}{suffix}").read_bytes() for suffix in (".idx", ".bin"))


def test_the_golden_bytes_are_read(golden):
    dataset = MegatronIndexedDataset(golden)
    assert [dataset[index].tolist() for index in range(len(dataset))] == [[1, 2, 3, 4], [5, 6], []]
    assert dataset.document_lengths.tolist() == [4, 2, 0]
    assert dataset[0].dtype == np.uint16


def test_the_golden_bytes_are_written(tmp_path):
    write(tmp_path / "mine", [[[1, 2, 3], [4]], [[5, 6]], []], np.uint16)
    assert contents(tmp_path / "mine") == (GOLDEN_IDX, GOLDEN_BIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.bin", "mine.idx"]


def test_modes_of_multimodal_files_are_read(golden):
    golden.with_suffix(".idx").write_bytes(GOLDEN_IDX + bytes([0, 1, 2]))
    assert MegatronIndexedDataset(golden).modes.tolist() == [0, 1, 2]


@pytest.mark.parametrize("code", DTYPES)
def test_every_type_comes_back(tmp_path, code):
    documents = [[[1, 2, 3], [4]], [[5, 6]], []]
    write(tmp_path / "corpus", documents, DTYPES[code])
    dataset = MegatronIndexedDataset(tmp_path / "corpus")
    assert [dataset[index].tolist() for index in range(3)] == [[1, 2, 3, 4], [5, 6], []]
    assert dataset[0].dtype == DTYPES[code]


corpora = st.lists(st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=6), max_size=3), max_size=8)


@given(documents=corpora, stop=st.integers(0, 8))
def test_a_writer_that_is_killed_goes_on_where_it_was_synced(tmp_path_factory, documents, stop):
    folder = tmp_path_factory.mktemp("writer")
    write(folder / "whole", documents, np.uint16)
    first = MegatronIndexedWriter(folder / "parts", np.uint16)
    position = WriterPosition()
    for index, sequences in enumerate(documents):
        if index == stop:
            position = first.sync()
        first.add_document(flatten(sequences), map(len, sequences))
    first.close()  # without finishing, and what came after the sync may or may not be in the files
    second = MegatronIndexedWriter(folder / "parts", np.uint16, position)
    for sequences in documents[stop:] if position.documents or stop == 0 else documents:
        second.add_document(flatten(sequences), map(len, sequences))
    second.finish()
    assert contents(folder / "parts") == contents(folder / "whole")


def test_several_documents_at_once_are_the_same_as_one_by_one(tmp_path):
    write(tmp_path / "one", [[[1, 2]], [[3]]], np.int32)
    writer = MegatronIndexedWriter(tmp_path / "many", np.int32)
    writer.add_documents(np.array([1, 2, 3], np.int32), np.array([2, 1]))
    writer.finish()
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_value_that_does_not_fit_is_refused_instead_of_wrapping(tmp_path):
    writer = MegatronIndexedWriter(tmp_path / "corpus", np.uint16)
    with pytest.raises(ValueError, match="70000 does not fit type uint16; write a wider type"):
        writer.add_document(np.array([1, 70000], np.int64))


def test_types_that_megatron_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError, match="type uint32 has no Megatron code; use one of uint8"):
        MegatronIndexedWriter(tmp_path / "corpus", np.uint32)


def test_nothing_is_there_before_the_end(tmp_path):
    writer = MegatronIndexedWriter(tmp_path / "corpus", np.uint16)
    writer.add_document(np.array([1], np.uint16))
    writer.sync()
    assert not (tmp_path / "corpus.idx").exists()
    assert not (tmp_path / "corpus.bin").exists()


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (17, b"\x09", "unknown type code 9"),
        (9, b"\x02", "index version 2; only version 1"),
        (0, b"SOMETHING", "not a Megatron index"),
        (34, b"\xff\xff\xff\xff", "contradict one another"),
        (46 + 24, b"\x01", "contradict one another"),
        (46 + 24 + 24, b"\x02", "contradict one another"),
        (46 + 16, b"\xff", "golden.bin: holds 12 bytes, its index refers to 259; the file is truncated"),
    ],
)
def test_foreign_and_damaged_indexes_are_refused(golden, offset, value, message):
    content = bytearray(GOLDEN_IDX)
    content[offset : offset + len(value)] = value
    golden.with_suffix(".idx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        MegatronIndexedDataset(golden)


@pytest.mark.parametrize(("suffix", "message"), [(".bin", "its index refers to 12"), (".idx", "its header announces")])
def test_truncated_files_are_refused(golden, suffix, message):
    path = golden.with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{message}.*the file is truncated"):
        MegatronIndexedDataset(golden)


@pytest.mark.parametrize("size", [0, 8])
def test_an_index_without_a_header_is_refused(golden, size):
    golden.with_suffix(".idx").write_bytes(GOLDEN_IDX[:size])
    with pytest.raises(ValueError, match="not a Megatron index"):
        MegatronIndexedDataset(golden)


@pytest.mark.parametrize("missing", [".idx", ".bin"])
def test_missing_files_are_named(golden, missing):
    golden.with_suffix(missing).unlink()
    with pytest.raises(ValueError, match=rf"golden\{missing}: no such file; a Megatron prefix names"):
        MegatronIndexedDataset(golden)


@pytest.mark.parametrize("code", DTYPES)
def test_megatron_reads_ours_and_writes_the_same_bytes(tmp_path, code):
    """The independent peer, where it is installed: `pip install megatron-core`."""
    theirs = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    import torch

    documents = [[[1, 2, 3], [4]], [[5, 6]], [[7]] * 5]
    dtype = DTYPES[code]
    write(tmp_path / "ours", documents, dtype)
    builder = theirs.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=theirs.DType.dtype_from_code(code))
    for sequences in documents:
        for sequence in sequences:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")

    read = theirs.IndexedDataset(str(tmp_path / "ours"))
    assert [read[index].tolist() for index in range(len(read))] == [s for document in documents for s in document]
    assert read.document_indices.tolist() == [0, 2, 3, 8]
    dataset = MegatronIndexedDataset(tmp_path / "theirs")
    assert [dataset[index].tolist() for index in range(3)] == [flatten(document).tolist() for document in documents]


def test_struct_and_golden_agree():
    assert struct.unpack_from("<9sQBQQ", GOLDEN_IDX) == (b"MMIDIDX\0\0", 1, 8, 3, 4)
