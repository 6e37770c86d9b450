"""Pipelines lose and repeat nothing, and resume exactly."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.documents import IndexedDocuments, Shard, StreamedDocuments
from trainkit.data.packing import Batches, Encoded, PackedRows, PaddedRows
from trainkit.data.shuffling import Shuffled

datasets = pytest.importorskip("datasets")


def corpus(count: int, seed: int = 0) -> list[list[int]]:
    """Documents of distinct integers, so that each one can be recognised."""
    rng, start, documents = random.Random(seed), 0, []
    for _ in range(count):
        length = rng.randint(1, 9)
        documents.append(list(range(start, start + length)))
        start += length
    return documents


def make_pipeline(documents, shard=None, repeat=True, **options):
    """Build documents -> shuffle -> rows -> batches from keyword choices."""
    if options.get("streamed"):
        rows = datasets.Dataset.from_dict({"ids": documents})
        source = StreamedDocuments(
            lambda: rows.to_iterable_dataset(num_shards=3), lambda row: row["ids"], "corpus", repeat
        )
    else:
        seed = options.get("permutation_seed")
        source = IndexedDocuments(documents.__getitem__, len(documents), "corpus", shard, repeat, seed)
    if options.get("buffer"):
        source = Shuffled(source, options["buffer"], seed=3)
    source = Encoded(source, list)
    if options.get("padded"):
        return Batches(PaddedRows(source, 5, pad=-1), 2)
    return Batches(PackedRows(source, 5, options.get("overlap", 0)), 2)


def take(source, count):
    return [{name: tensor.clone() for name, tensor in next(source).items()} for _ in range(count)]


@given(
    count=st.integers(8, 30),
    stop=st.integers(0, 12),
    buffer=st.sampled_from([0, 1, 4, 100]),
    padded=st.booleans(),
    streamed=st.booleans(),
    overlap=st.integers(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_resuming_anywhere_continues_with_the_same_batches(count, stop, buffer, padded, streamed, overlap):
    options = {"buffer": buffer, "padded": padded, "streamed": streamed, "overlap": overlap, "permutation_seed": 7}
    uninterrupted = take(make_pipeline(corpus(count), **options), stop + 12)
    first = make_pipeline(corpus(count), **options)
    take(first, stop)
    resumed = make_pipeline(corpus(count), **options)
    resumed.load_state_dict(first.state_dict())
    for expected, batch in zip(uninterrupted[stop:], take(resumed, 12), strict=True):
        assert all(torch.equal(expected[name], batch[name]) for name in expected)


@given(count=st.integers(1, 40), size=st.integers(1, 4), seed=st.one_of(st.none(), st.integers(0, 9)))
def test_shards_are_disjoint_and_together_complete(count, size, seed):
    seen = []
    for rank in range(size):
        seen += list(
            IndexedDocuments(lambda index: index, count, "n", Shard(rank, size), repeat=False, shuffle_seed=seed)
        )
    assert sorted(seen) == list(range(count))


def test_every_epoch_holds_every_document_once_in_a_new_order():
    source = IndexedDocuments(lambda index: index, 20, "n", shuffle_seed=1)
    epochs = [[next(source) for _ in range(20)] for _ in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("buffer", [0, 5])
def test_packed_rows_contain_the_whole_corpus_in_pieces(streamed, buffer):
    documents = corpus(23)
    pipeline = make_pipeline(documents, repeat=False, streamed=streamed, buffer=buffer)
    tokens = torch.cat([batch["tokens"].flatten() for batch in pipeline])
    total = sum(map(len, documents))
    assert len(tokens) == total - total % 5
    assert len(set(tokens.tolist())) == len(tokens)


def test_overlapping_rows_make_every_token_a_target_exactly_once():
    rows = PackedRows(IndexedDocuments(lambda i: np.array([i]), 21, "n", repeat=False), row_length=6, overlap=1)
    targets = torch.cat([row["tokens"][1:] for row in rows])
    assert targets.tolist() == list(range(1, 21))


def test_padded_rows_keep_one_document_each():
    batch = next(make_pipeline([[1, 2], [1, 2, 3, 4, 5, 6, 7]], padded=True))
    assert batch["tokens"].tolist() == [[1, 2, -1, -1, -1], [1, 2, 3, 4, 5]]
    assert batch["valid"].sum(1).tolist() == [2, 5]


def test_a_repeating_corpus_shorter_than_a_row_is_refused_with_its_size():
    with pytest.raises(ValueError, match=r"corpus holds 3 tokens .* fewer than one row of 5: give it more text"):
        next(make_pipeline([[1, 2], [3]]))


def test_an_empty_corpus_ends_at_once():
    with pytest.raises(StopIteration):
        next(make_pipeline([]))


def test_origin_names_the_documents_of_a_batch():
    pipeline = make_pipeline(corpus(9), padded=True)
    take(pipeline, 2)
    assert pipeline.origin() == "corpus, epoch 0, document 2 .. corpus, epoch 0, document 3"


def test_a_shuffled_epoch_ends_before_the_next_one_begins():
    source = Shuffled(IndexedDocuments(lambda index: index, 7, "n"), buffer_size=100, seed=0)
    epochs = [[next(source) for _ in range(7)] for _ in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert source.epoch == 2


def test_shuffling_moves_documents_but_keeps_them_all():
    source = Shuffled(IndexedDocuments(lambda index: index, 50, "n", repeat=False), buffer_size=10, seed=0)
    order = list(source)
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
