"""Rows: packed end to end, or one array each."""

import numpy as np
import pytest
import torch

from trainkit.data.documents import IndexedRecords
from trainkit.data.encoding import Encoded
from trainkit.data.packing import Batches, PackedRows, PaddedRows, RowLayout


def encoded(documents, repeat=False):
    return Encoded(IndexedRecords(documents.__getitem__, len(documents), "corpus", repeat=repeat), np.asarray)


def test_overlapping_rows_make_every_token_a_target_exactly_once():
    rows = PackedRows(encoded([[index] for index in range(21)]), RowLayout(6, overlap=1))
    targets = torch.cat([row["tokens"][1:] for row in rows])
    assert targets.tolist() == list(range(1, 21))


def test_packed_rows_tell_documents_apart_where_a_separator_opens_them():
    documents = [[0, 5, 6, 7], [0, 8], [0, 9, 9, 9, 9, 9, 9]]
    rows = list(PackedRows(encoded(documents), RowLayout(6, separator=0)))
    assert rows[0]["documents"].tolist() == [1, 1, 1, 1, 2, 2]
    assert rows[1]["tokens"].tolist() == [0, 9, 9, 9, 9, 9]
    assert "documents" not in next(PackedRows(encoded(documents), RowLayout(6)))


def test_a_row_that_begins_inside_a_document_counts_it_apart_from_the_next():
    rows = list(PackedRows(encoded([[0, 5, 6, 7, 8, 9], [0, 1, 2]]), RowLayout(4, separator=0)))
    assert rows[1]["tokens"].tolist() == [8, 9, 0, 1]
    assert rows[1]["documents"].tolist() == [0, 0, 1, 1]


def test_a_long_document_is_cut_into_many_rows():
    rows = list(PackedRows(encoded([list(range(1000))]), RowLayout(7)))
    assert torch.cat([row["tokens"] for row in rows]).tolist() == list(range(994))


def test_padded_rows_keep_one_document_each():
    batch = next(Batches(PaddedRows(encoded([[1, 2], [1, 2, 3, 4, 5, 6, 7]]), 5, pad=-1), 2))
    assert batch["tokens"].tolist() == [[1, 2, -1, -1, -1], [1, 2, 3, 4, 5]]
    assert batch["valid"].sum(1).tolist() == [2, 5]


def test_a_repeating_corpus_shorter_than_a_row_is_refused_with_its_size():
    with pytest.raises(ValueError, match=r"holds 3 tokens .* fewer than one row of 5: give it more text"):
        next(PackedRows(encoded([[1, 2], [3]], repeat=True), RowLayout(5)))


def test_a_finite_corpus_shorter_than_a_row_has_no_rows_and_says_how_much_it_holds():
    rows = PackedRows(encoded([[1, 2], [3]]), RowLayout(5))
    assert list(rows) == []
    assert rows.values_read == 3


def test_the_last_batch_of_a_finite_source_may_be_smaller():
    batches = list(Batches(PaddedRows(encoded([[1]] * 5), 2, pad=0), 2))
    assert [len(batch["tokens"]) for batch in batches] == [2, 2, 1]
