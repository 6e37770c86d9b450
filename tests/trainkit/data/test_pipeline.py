"""Whole pipelines: nothing lost, nothing repeated, and a resumed run sees the batches of the uninterrupted one.

Each example builds the pipelines of all ranks over a random corpus, in one of the ways a corpus is read.
"""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from corpora import FILE_KINDS, KINDS, Plan, make_corpus, make_indexed_rows, make_pipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainkit.data.documents import Shard
from trainkit.data.packing import Batches, RowLayout
from trainkit.data.prefetch import Prefetched
from trainkit.state import _require_plain

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

plans = st.builds(
    Plan,
    kind=st.sampled_from(KINDS),
    buffer=st.sampled_from([0, 1, 4, 100]),
    workers=st.sampled_from([0, 1, 2]),
    depth=st.sampled_from([0, 1, 3]),
    padded=st.booleans(),
    overlap=st.integers(0, 1),
)
worlds = st.integers(1, 4)
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def take(source, count):
    return [{name: tensor.clone() for name, tensor in next(source).items()} for _ in range(count)]


@contextmanager
def built(plan: Plan, documents: list, folder: str) -> Iterator[Batches | Prefetched]:
    """Build a pipeline, and stop its thread afterwards."""
    pipeline = make_pipeline(plan, documents, Path(folder))
    try:
        yield pipeline
    finally:
        if isinstance(pipeline, Prefetched):
            pipeline.close()


def through_a_file(state: dict) -> dict:
    """Save and load a state as a checkpoint does."""
    _require_plain(state, "state")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_equal(batches: list[dict], expected: list[dict]) -> None:
    assert len(batches) == len(expected)
    for batch, wanted in zip(batches, expected, strict=True):
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@given(plan=plans, size=worlds, rank=worlds, count=st.integers(24, 40), stops=st.lists(st.integers(0, 9), max_size=3))
@EXAMPLES
def test_killed_anywhere_and_resumed_every_rank_sees_the_batches_of_the_uninterrupted_run(
    plan, size, rank, count, stops
):
    documents = make_corpus(count)
    plan = Plan(**{**vars(plan), "shard": Shard(rank % size, size)})
    with tempfile.TemporaryDirectory() as folder:
        with built(plan, documents, folder) as pipeline:
            expected = take(pipeline, sum(stops) + 8)
        state, seen = None, []
        for stop in [*stops, 8]:
            with built(plan, documents, folder) as pipeline:
                if state is not None:
                    pipeline.load_state_dict(state)
                seen += take(pipeline, stop)
                state = through_a_file(pipeline.state_dict())
    assert_equal(seen, expected)


@given(plan=plans, size=worlds, count=st.integers(1, 40), data=st.data())
@EXAMPLES
def test_ranks_hold_disjoint_documents_and_together_all_of_them_also_when_killed_on_the_way(plan, size, count, data):
    documents = make_corpus(count)
    firsts = []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(size):
            changed = {"shard": Shard(rank, size), "repeat": False, "padded": True}
            own = Plan(**{**vars(plan), **changed})
            with built(own, documents, folder) as pipeline:
                stop = data.draw(st.integers(0, count // size // 2), "batches before the kill")
                batches = take(pipeline, stop)
                state = through_a_file(pipeline.state_dict())
            with built(own, documents, folder) as pipeline:
                pipeline.load_state_dict(state)
                batches += list(pipeline)
            firsts += [int(first) for batch in batches for first in batch["tokens"][:, 0]]
    assert sorted(firsts) == [document[0] for document in documents]


@given(plan=plans, count=st.integers(8, 30), workers=st.tuples(st.integers(0, 3), st.integers(0, 3)))
@EXAMPLES
def test_batches_do_not_depend_on_workers_or_prefetching_not_even_when_they_change_at_a_resume(plan, count, workers):
    documents = make_corpus(count)
    before, after = (Plan(**{**vars(plan), "workers": each, "depth": each}) for each in workers)
    with tempfile.TemporaryDirectory() as folder:
        with built(Plan(**{**vars(plan), "workers": 0, "depth": 0}), documents, folder) as pipeline:
            expected = take(pipeline, 12)
        with built(before, documents, folder) as pipeline:
            batches = take(pipeline, 6)
            state = pipeline.state_dict()
        with built(after, documents, folder) as pipeline:
            pipeline.load_state_dict(state)
            batches += take(pipeline, 6)
    assert_equal(batches, expected)


@given(
    size=worlds,
    count=st.integers(6, 30),
    stop=st.integers(0, 20),
    seed=st.one_of(st.none(), st.integers(0, 5)),
    overlap=st.integers(0, 1),
)
@EXAMPLES
def test_indexed_rows_hold_every_integer_once_per_epoch_over_all_ranks_also_when_killed(
    size, count, stop, seed, overlap
):
    documents = make_corpus(count)
    layout = RowLayout(5 + overlap, overlap)
    total = sum(map(len, documents))
    # After lcm(total, 5) integers the endless line has been cut at the end of an epoch again.
    rows_of_five_epochs = total
    seen = torch.zeros(total, dtype=torch.int64)
    for rank in range(size):
        mine = len(range(rank, rows_of_five_epochs, size))
        first = make_indexed_rows(documents, layout, Shard(rank, size), seed)
        rows = [next(first) for _ in range(min(stop, mine))]
        second = make_indexed_rows(documents, layout, Shard(rank, size), seed)
        second.load_state_dict(through_a_file(first.state_dict()))
        rows += [next(second) for _ in range(mine - len(rows))]
        for row in rows:
            seen += torch.bincount(row["tokens"][:5], minlength=total)
    assert seen.tolist() == [5] * total


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_every_kind_of_file_holds_the_same_documents(kind, tmp_path):
    documents = make_corpus(23)
    pipeline = make_pipeline(Plan(kind, repeat=False), documents, tmp_path)
    tokens = torch.cat([batch["tokens"].flatten() for batch in pipeline]).tolist()
    flat = [value for document in documents for value in document]
    assert tokens == flat[: len(flat) // 5 * 5]


def test_a_position_in_another_pipeline_is_refused():
    documents = make_corpus(9)
    rows = make_indexed_rows(documents, RowLayout(5), Shard(), 0)
    state = Batches(rows, 2, "packed rows of 5").state_dict()
    with pytest.raises(ValueError, match=r"position is one in packed rows of 5, and this run reads rows.*new run"):
        Batches(rows, 2, "rows").load_state_dict(state)


def test_origin_names_the_documents_of_a_batch(tmp_path):
    pipeline = make_pipeline(Plan("lines", padded=True, depth=2), make_corpus(9), tmp_path)
    take(pipeline, 3)
    pipeline.close()
    assert pipeline.origin() == f"{tmp_path}/part1.lines:2 .. {tmp_path}/part1.lines:3"
