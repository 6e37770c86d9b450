"""A shuffle within an epoch."""

from trainkit.data.documents import IndexedRecords, Shard
from trainkit.data.shuffling import Shuffled


def numbers(count, shard=None, repeat=True):
    return IndexedRecords(lambda index: index, count, "n", shard, repeat)


def test_a_shuffled_epoch_ends_before_the_next_one_begins():
    source = Shuffled(numbers(7), buffer_size=100, seed=0)
    epochs = [[next(source) for _ in range(7)] for _ in range(3)]
    assert all(sorted(record.payload for record in epoch) == list(range(7)) for epoch in epochs)
    assert [{record.epoch for record in epoch} for epoch in epochs] == [{0}, {1}, {2}]


def test_shuffling_moves_documents_but_keeps_them_all():
    order = [record.payload for record in Shuffled(numbers(50, repeat=False), buffer_size=10, seed=0)]
    assert sorted(order) == list(range(50))
    assert order != list(range(50))


def test_a_rank_without_documents_in_some_epochs_goes_on():
    source = Shuffled(numbers(2, Shard(1, 5)), buffer_size=3, seed=0)
    assert [next(source).payload for _ in range(6)] == [1, 0, 1, 0, 1, 0]


def test_different_seeds_give_different_orders_and_the_same_seed_the_same():
    orders = [[record.payload for record in Shuffled(numbers(50, repeat=False), 20, seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
