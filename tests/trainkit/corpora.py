"""Small corpora of documents that can be told apart, in every way a pipeline reads them."""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.documents import IndexedRecords, Records, Shard
from trainkit.data.encoding import Encoded
from trainkit.data.files import FileRecords, Layout
from trainkit.data.indexed_rows import IndexedRows, Order
from trainkit.data.packing import Batches, PackedRows, PaddedRows, RowLayout
from trainkit.data.prefetch import Prefetched
from trainkit.data.shuffling import Shuffled
from trainkit.data.streaming import RetriedPass, Retry, StreamedRecords

FILE_KINDS = ("jsonl", "jsonl.gz", "array", "lines", "paragraphs", "parquet", "arrow")
KINDS = (*FILE_KINDS, "indexed", "permuted", "dataset")
Document = list[int]


def make_corpus(count: int, seed: int = 0) -> list[Document]:
    """Documents of integers, none of which occurs twice."""
    rng, start, documents = random.Random(seed), 0, []
    for _ in range(count):
        length = rng.randint(1, 9)
        documents.append(list(range(start, start + length)))
        start += length
    return documents


@dataclass(frozen=True)
class Plan:
    """How to read a corpus."""

    kind: str = "indexed"
    shard: Shard = Shard()  # noqa: RUF009
    repeat: bool = True
    buffer: int = 0
    workers: int = 0
    depth: int = 0
    padded: bool = False
    overlap: int = 0


def spell(document: Document) -> str:
    return " ".join(map(str, document))


def write_files(folder: Path, kind: str, documents: Sequence[Document], parts: int = 3) -> list[str]:
    """Write documents into a few files of one kind, in order."""
    names = []
    for part in range(parts):
        first, end = len(documents) * part // parts, len(documents) * (part + 1) // parts
        texts = [spell(document) for document in documents[first:end]]
        path = folder / f"part{part}.{kind}"
        write_file(path, kind, texts)
        names.append(str(path))
    return names


def write_file(path: Path, kind: str, texts: Sequence[str]) -> None:
    lines = "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in texts)
    match kind:
        case "jsonl":
            path.write_text(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "array":
            path.write_text(json.dumps([{"text": text} for text in texts], indent=1))
        case "lines":
            path.write_text("".join(f"{text}\r\n" for text in texts))
        case "paragraphs":
            path.write_text("\n\n\n".join(text.replace(" ", "\n") for text in texts))
        case _:
            write_table(path, kind, texts)


def write_table(path: Path, kind: str, texts: Sequence[str]) -> None:
    import pyarrow
    from pyarrow import ipc, parquet

    table = pyarrow.table({"text": pyarrow.array(texts, pyarrow.string()), "other": [1] * len(texts)})
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=4)
        return
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


LAYOUTS = {
    "lines": Layout("text", sample_by="line"),
    "paragraphs": Layout("text"),
    "parquet": Layout("parquet"),
    "arrow": Layout("arrow"),
}


def open_records(plan: Plan, documents: Sequence[Document], folder: Path) -> tuple[Records, Callable[[Any], str]]:
    """Return one rank's records, and what turns their payload into text."""
    if plan.kind in ("indexed", "permuted"):
        seed = 7 if plan.kind == "permuted" else None
        get = lambda index: spell(documents[index])  # noqa: E731
        return IndexedRecords(get, len(documents), "corpus", plan.shard, plan.repeat, seed), str
    if plan.kind == "dataset":
        return StreamedRecords(lambda: open_dataset(documents), "corpus", plan.shard, plan.repeat), str
    layout = LAYOUTS.get(plan.kind, Layout("json"))
    if not any(folder.iterdir()):
        write_files(folder, plan.kind, documents)
    files = sorted(map(str, folder.iterdir()))
    return StreamedRecords(lambda: FileRecords(files, layout), "corpus", plan.shard, plan.repeat), FileRecords(
        files, layout
    ).decode


def open_dataset(documents: Sequence[Document]) -> RetriedPass:
    import datasets

    rows = datasets.Dataset.from_dict({"text": [spell(document) for document in documents]})
    retry = Retry((OSError,), lambda _: False, print)
    return RetriedPass(
        lambda: rows.to_iterable_dataset(num_shards=min(3, len(documents))),
        lambda row: (row["text"], ""),
        "corpus",
        retry,
    )


def make_pipeline(plan: Plan, documents: Sequence[Document], folder: Path) -> Batches | Prefetched:
    """Build records -> shuffled -> encoded -> rows -> batches -> prefetched."""
    records, decode = open_records(plan, documents, folder)
    if plan.buffer:
        records = Shuffled(records, plan.buffer, seed=3 + plan.shard.rank)
    arrays = Encoded(records, lambda payload: np.array(decode(payload).split(), np.uint16), workers=plan.workers)
    rows = PaddedRows(arrays, 5, pad=9999) if plan.padded else PackedRows(arrays, RowLayout(5, plan.overlap))
    batches = Batches(rows, 2)
    return Prefetched(batches, plan.depth) if plan.depth else batches


class Arrays:
    """Documents in memory, as IndexedRows reads them."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = [np.array(document, np.int32) for document in documents]
        self.document_lengths = np.array([len(document) for document in documents])

    def __getitem__(self, document: int) -> np.ndarray:
        return self.documents[document]


def make_indexed_rows(
    documents: Sequence[Document], layout: RowLayout, shard: Shard, seed: int | None, repeat: bool = True
) -> IndexedRows:
    return IndexedRows(Arrays(documents), layout, Order(shard, seed, repeat), "corpus", limit=10**6)
