"""Encoding in order, and broken records counted, reported, skipped or fatal."""

import threading
import time

import numpy as np
import pytest

from trainkit.data.documents import BadRecord, IndexedRecords
from trainkit.data.encoding import BadRecords, Encoded


def encode(payload: str) -> np.ndarray:
    if payload == "17":
        raise BadRecord("an unlucky number")
    return np.array([int(payload)])


def numbers(count, repeat=False):
    return IndexedRecords(str, count, "numbers", repeat=repeat)


@pytest.mark.parametrize("workers", [0, 3])
def test_arrays_come_in_the_order_of_the_records(workers):
    def slowly(payload: str) -> np.ndarray:
        time.sleep(0.002 if int(payload) % 40 == 0 else 0)
        return np.array([int(payload)])

    assert [int(array[0]) for array in Encoded(numbers(200), slowly, workers=workers)] == list(range(200))


def test_workers_encode_side_by_side():
    together = threading.Barrier(2, timeout=10)

    def meet(payload: str) -> np.ndarray:
        if payload in ("0", "32"):  # the first records of two chunks
            together.wait()
        return np.array([int(payload)])

    assert len(list(Encoded(numbers(64), meet, workers=2))) == 64


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_record_stops_with_its_place_and_the_remedy(workers):
    source = Encoded(numbers(30), encode, workers=workers)
    taken = [next(source) for _ in range(17)]
    assert len(taken) == 17
    with pytest.raises(ValueError, match=r'document 17: an unlucky number; mend it, or set on_bad_record = "skip"'):
        next(source)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_record_is_counted_and_reported_and_the_count_survives_a_resume(workers):
    lines: list[str] = []
    source = Encoded(numbers(30), encode, BadRecords("skip", lines.append), workers)
    assert [int(array[0]) for array in source] == [index for index in range(30) if index != 17]
    assert lines == ["skipped a malformed record: numbers, epoch 0, document 17: an unlucky number"]
    resumed = Encoded(numbers(30), encode, BadRecords("skip", lines.append), workers)
    resumed.load_state_dict(source.state_dict())
    assert resumed.bad_records.count == 1


def test_of_many_bad_records_the_first_are_named_and_then_only_round_numbers():
    lines: list[str] = []
    bad = BadRecords("skip", lines.append)
    for index in range(1500):
        bad.add(f"file:{index}", "broken")
    assert bad.count == 1500
    assert [line.split(":")[0] for line in lines[:10]] == ["skipped a malformed record"] * 10
    assert [line.split(" ")[1] for line in lines[10:]] == ["100", "1000"]


@pytest.mark.parametrize("repeat", [True, False])
def test_a_corpus_of_bad_records_only_is_refused_instead_of_being_skipped_for_ever(repeat):
    def refuse(payload: str) -> np.ndarray:
        raise BadRecord('no field "text"; it has body, title')

    source = Encoded(numbers(3000 if not repeat else 5, repeat), refuse, BadRecords("skip"))
    with pytest.raises(ValueError, match=r"records are malformed, the last one.*it has body, title; is this the right"):
        next(source)


def test_what_the_source_knows_to_be_broken_is_not_encoded():
    def get(index: int) -> str:
        raise BadRecord("torn out")

    with pytest.raises(ValueError, match="document 0: torn out"):
        next(Encoded(IndexedRecords(get, 1, "n"), encode))
