"""Records are dealt to ranks from one endless sequence."""

import pytest

from trainkit.data.documents import BadRecord, IndexedRecords, Shard
from trainkit.data.streaming import StreamedRecords


class Items:
    """A pass over numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return ((f"item {index}", index, "") for index in range(self.count))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def open_source(kind: str, count: int, shard: Shard, repeat: bool = True):
    if kind == "indexed":
        return IndexedRecords(lambda index: index, count, "numbers", shard, repeat)
    return StreamedRecords(lambda: Items(count), "numbers", shard, repeat)


@pytest.mark.parametrize("kind", ["indexed", "streamed"])
def test_an_epoch_ends_for_all_ranks_at_the_same_place(kind):
    sources = [open_source(kind, 5, Shard(rank, 2)) for rank in range(2)]
    dealt = [next(sources[index % 2]) for index in range(15)]
    assert [record.payload for record in dealt] == [*range(5)] * 3
    assert [record.epoch for record in dealt] == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("kind", ["indexed", "streamed"])
def test_more_ranks_than_documents_still_get_some(kind):
    sources = [open_source(kind, 2, Shard(rank, 5)) for rank in range(5)]
    assert [next(source).payload for source in sources] == [0, 1, 0, 1, 0]
    assert [next(source).payload for source in sources] == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("kind", ["indexed", "streamed"])
def test_an_empty_corpus_that_should_repeat_is_an_error_and_one_pass_over_it_is_empty(kind):
    assert list(open_source(kind, 0, Shard(), repeat=False)) == []
    with pytest.raises(ValueError, match="numbers holds no document, so 0 tokens to train on"):
        next(open_source(kind, 0, Shard()))


def test_every_epoch_holds_every_document_once_in_a_new_order():
    source = IndexedRecords(lambda index: index, 20, "n", shuffle_seed=1)
    epochs = [[next(source).payload for _ in range(20)] for _ in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_document_that_cannot_be_had_keeps_its_place_and_says_why():
    def get(index: int) -> int:
        if index == 1:
            raise BadRecord("torn out")
        return index

    records = list(IndexedRecords(get, 3, "n", repeat=False))
    assert [(record.payload, record.problem) for record in records] == [(0, ""), (None, "torn out"), (2, "")]


def test_a_position_in_a_corpus_that_has_changed_is_refused():
    state = IndexedRecords(str, 5, "numbers").state_dict()
    with pytest.raises(ValueError, match="numbers has 6 documents and had 5 when the checkpoint was saved"):
        IndexedRecords(str, 6, "numbers").load_state_dict(state)
