"""Batches made in the background."""

import threading
import time

import pytest
import torch

from trainkit.data.prefetch import Prefetched


class Counting:
    """Batches 1, 2, 3, ..., each after a while."""

    def __init__(self, end: int = 1000, seconds: float = 0.0) -> None:
        self.count, self.end, self.seconds = 0, end, seconds
        self.threads: set[int] = set()

    def __next__(self):
        if self.count == self.end:
            raise StopIteration
        time.sleep(self.seconds)
        self.threads.add(threading.get_ident())
        self.count += 1
        return {"x": torch.tensor([self.count])}

    def origin(self):
        return f"batch {self.count}"

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.fixture
def prefetch():
    made = []

    def make(source, depth=2):
        made.append(Prefetched(source, depth))
        return made[-1]

    yield make
    for each in made:
        each.close()


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_batches_are_made_ahead_in_another_thread_but_not_before_the_first_is_asked_for(prefetch):
    source = Counting()
    batches = prefetch(source, depth=3)
    time.sleep(0.02)
    assert source.count == 0
    assert next(batches)["x"].item() == 1
    wait_until(lambda: source.count == 5)  # one taken, three waiting, one in hand
    time.sleep(0.02)
    assert source.count == 5
    assert threading.get_ident() not in source.threads


def test_the_state_is_that_of_the_last_batch_taken(prefetch):
    source = Counting()
    batches = prefetch(source)
    assert [next(batches)["x"].item() for _ in range(3)] == [1, 2, 3]
    wait_until(lambda: source.count > 4)
    assert batches.state_dict() == {"count": 3}
    assert batches.origin() == "batch 3"
    batches.load_state_dict({"count": 7})
    assert batches.state_dict() == {"count": 7}
    assert next(batches)["x"].item() == 8


def test_closing_loses_nothing(prefetch):
    batches = prefetch(Counting())
    assert next(batches)["x"].item() == 1
    batches.close()
    assert [next(batches)["x"].item() for _ in range(2)] == [2, 3]


def test_an_error_comes_behind_the_batches_before_it_and_comes_again(prefetch):
    batches = prefetch(Counting(end=2))
    assert [next(batches)["x"].item() for _ in range(2)] == [1, 2]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(batches)


def test_waiting_and_working_overlap(prefetch):
    batches = prefetch(Counting(seconds=0.02))
    next(batches)
    waited = 0.0
    for _ in range(5):
        time.sleep(0.06)  # train
        began = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - began
    assert waited < 0.05, "making these batches takes 0.1 s"
