"""Rows that cross documents and epochs."""

import numpy as np
import pytest
from corpora import Arrays, make_corpus, make_indexed_rows

from trainkit.data.documents import Shard
from trainkit.data.indexed_rows import IndexedRows, Order
from trainkit.data.packing import RowLayout


def test_unshuffled_rows_are_the_documents_end_to_end_with_one_integer_shared():
    rows = make_indexed_rows([[0, 1, 2], [], [3], [4, 5, 6, 7]], RowLayout(4, overlap=1), Shard(), None, repeat=False)
    assert [row["tokens"].tolist() for row in rows] == [[0, 1, 2, 3], [3, 4, 5, 6]]


def test_an_epoch_runs_into_the_next_without_a_gap():
    rows = make_indexed_rows([[0, 1, 2], [3, 4]], RowLayout(4), Shard(), None)
    assert [next(rows)["tokens"].tolist() for _ in range(3)] == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]


def test_documents_stay_whole_in_the_order_of_an_epoch_and_orders_differ():
    documents = [[10 * index + 1, 10 * index + 2] for index in range(12)]
    rows = make_indexed_rows(documents, RowLayout(2), Shard(), seed=4)
    epochs = [[next(rows)["tokens"].tolist() for _ in range(12)] for _ in range(2)]
    assert all(sorted(epoch) == documents for epoch in epochs)
    assert epochs[0] != epochs[1]
    other = make_indexed_rows(documents, RowLayout(2), Shard(), seed=5)
    assert [next(other)["tokens"].tolist() for _ in range(12)] != epochs[0]


def test_rows_are_dealt_in_another_order_than_they_lie():
    rows = make_indexed_rows([list(range(60))], RowLayout(3), Shard(), seed=0)
    starts = [int(next(rows)["tokens"][0]) for _ in range(20)]
    assert sorted(starts) == list(range(0, 60, 3))
    assert starts != sorted(starts)


def test_too_few_tokens_for_one_row_are_an_error_that_counts_them():
    with pytest.raises(ValueError, match="corpus holds 3 tokens, fewer than one row of 5: prepare more text"):
        make_indexed_rows([[1, 2], [3]], RowLayout(5), Shard(), 0)


@pytest.mark.parametrize("wrong", [300, -1])
def test_an_id_outside_the_vocabulary_names_its_document(wrong):
    arrays = Arrays([[1, 2, 3], [4, wrong, 6]])
    rows = IndexedRows(arrays, RowLayout(6), Order(repeat=False), "corpus", limit=300)
    with pytest.raises(ValueError, match=f"document 1 holds the token id {wrong}, and the vocabulary has 300"):
        next(rows)


def test_a_position_in_other_files_or_with_another_seed_is_refused():
    state = make_indexed_rows(make_corpus(9), RowLayout(5), Shard(), seed=1).state_dict()
    for documents, seed in ((make_corpus(8), 1), (make_corpus(9), 2)):
        with pytest.raises(ValueError, match=r"when the checkpoint was saved it had \d+, seed 1"):
            make_indexed_rows(documents, RowLayout(5), Shard(), seed).load_state_dict(state)


def test_types_of_files_are_read_as_they_are():
    arrays = Arrays([[1, 2, 3, 4]])
    arrays.documents = [np.array([1, 2, 3, 65535], np.uint16)]
    rows = IndexedRows(arrays, RowLayout(4), Order(repeat=False), "corpus", limit=65536)
    assert next(rows)["tokens"].tolist() == [1, 2, 3, 65535]
