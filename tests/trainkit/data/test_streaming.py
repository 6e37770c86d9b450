"""A dropped line is waited for, and reading goes on where it stopped."""

import pytest

from trainkit.data.documents import Shard
from trainkit.data.streaming import RetriedPass, Retry, StreamedRecords


class Flaky:
    """Numbers whose source drops the line before some of them, once each; the position is known once it is read."""

    def __init__(self, count, dropped):
        self.count, self.dropped, self.start, self.position = count, dropped, 0, None

    def __iter__(self):
        self.position = self.start
        while self.position < self.count:
            if self.position in self.dropped:
                self.dropped.remove(self.position)
                raise ConnectionError("line dropped")
            self.position += 1
            yield self.position - 1

    def state_dict(self):
        return {"position": self.position or 0}

    def load_state_dict(self, state):
        self.start = state["position"]


def make_pass(dropped, lines, **options):
    options = {"is_transient": lambda error: "gone" not in str(error), "first_wait_s": 0.0, **options}
    retry = Retry((OSError,), report=lines.append, **options)
    return RetriedPass(lambda: Flaky(10, dropped), lambda number: (number, ""), "numbers", retry)


def test_reading_goes_on_where_it_stopped_and_every_drop_is_told():
    lines: list[str] = []
    records = list(StreamedRecords(lambda: make_pass({0, 3, 4, 9}, lines), "numbers", Shard(), repeat=False))
    assert [record.payload for record in records] == list(range(10))
    assert lines == ["numbers: line dropped; trying again in 0 s (1 of 6)"] * 4


def test_waiting_doubles_and_ends():
    class Down:
        def __iter__(self):
            raise ConnectionError("line dropped")

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    lines: list[str] = []
    retry = Retry((OSError,), lambda _: True, lines.append, max_failures=3, first_wait_s=0.001)
    with pytest.raises(ConnectionError):
        list(RetriedPass(Down, lambda number: (number, ""), "numbers", retry))
    assert [line.partition("again in ")[2] for line in lines] == [
        "0.001 s (1 of 3)",
        "0.002 s (2 of 3)",
        "0.004 s (3 of 3)",
    ]


def test_what_will_not_pass_is_not_tried_again():
    calls = []

    def open_dataset():
        calls.append(1)
        raise FileNotFoundError("gone for good")

    with pytest.raises(FileNotFoundError):
        Retry((OSError,), lambda error: "gone" not in str(error), print).call(open_dataset, "numbers")
    assert len(calls) == 1


def test_a_position_loaded_is_the_position_until_something_is_read():
    first = make_pass(set(), [])
    items = iter(first)
    for _ in range(4):
        next(items)
    second = make_pass(set(), [])
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert [payload for _, payload, _ in second] == list(range(4, 10))
