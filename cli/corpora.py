"""From the keys that name a corpus to its records: the embedded corpora, local files, or the Hub."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from config.sections.data import FILE_FORMATS, CorpusSection, OneSplitSection
from trainkit.data.documents import BadRecord, IndexedRecords, Records, Shard
from trainkit.data.encoding import BadRecords, Encoded
from trainkit.data.files import FileRecords, Layout
from trainkit.data.streaming import StreamedRecords
from transformerlm.synthetic.languages import LANGUAGES


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a split."""

    split: str
    shard: Shard = field(default_factory=Shard)
    repeat: bool = False
    streaming: bool = True
    shuffle_seed: int | None = None
    """Of a permutation of all documents, for corpora that can be indexed."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """One rank's records, and how a payload becomes text."""

    records: Records
    decode: Callable[[Any], str]
    is_shuffled: bool = False
    """Whether the records come in random order already."""
    files: tuple[str, ...] = ()
    """Local files that they are read from."""
    bytes_done: Callable[[], int] = int
    """How much of the files has been read."""


def open_corpus(data: CorpusSection, reading: Reading) -> Corpus:
    """Open a corpus; raises ValueError naming the key at fault."""
    if data.dataset_name in LANGUAGES:
        records = IndexedRecords(keep, None, f"{data.dataset_name} {reading.split}", reading.shard)
        return Corpus(records, partial(LANGUAGES[data.dataset_name].document, reading.split), is_shuffled=True)
    files = find_files(data, reading.split)
    if files is None:
        return _open_dataset(data, reading)
    layout = Layout(data.dataset_name, data.text_field, data.sample_by)
    if not reading.streaming:
        return _index_files(data, reading, files, layout)
    name = describe_corpus(data, reading.split)
    records = StreamedRecords(lambda: FileRecords(files, layout), name, reading.shard, reading.repeat)
    return Corpus(records, FileRecords(files, layout).decode, files=files, bytes_done=records.bytes_done)


def _open_dataset(data: CorpusSection, reading: Reading) -> Corpus:
    """Open what `datasets` knows how to find."""
    from cli import hub

    if reading.streaming:
        return Corpus(hub.stream_records(data, reading.split, reading.shard, reading.repeat), keep)
    rows = hub.load_dataset(data, reading.split, streaming=False)
    return _index_rows(data, reading, len(rows), lambda index: hub.require_text(rows[index], data.text_field))


def _index_files(data: CorpusSection, reading: Reading, files: tuple[str, ...], layout: Layout) -> Corpus:
    from cli import hub

    rows = hub.slice_rows(hub.index_files(files, layout), reading.split)

    def get(index: int) -> str:
        row = rows[index]
        if row["problem"]:
            raise BadRecord(f"{row['place']}: {row['problem']}")
        return row["text"]

    return _index_rows(data, reading, len(rows), get)


def _index_rows(data: CorpusSection, reading: Reading, count: int, get: Callable[[int], str]) -> Corpus:
    name = describe_corpus(data, reading.split)
    records = IndexedRecords(get, count, name, reading.shard, reading.repeat, reading.shuffle_seed)
    return Corpus(records, keep, is_shuffled=reading.shuffle_seed is not None)


def keep(payload: Any) -> Any:
    """Return a payload that needs no decoding."""
    return payload


def read_texts(data: OneSplitSection, split: str, max_documents: int | None = None) -> Iterator[str]:
    """Yield a corpus's documents once, in order, for reading without training."""
    from cli.output import remark

    corpus = open_corpus(data, Reading(split))
    return islice(Encoded(corpus.records, corpus.decode, BadRecords(data.on_bad_record, remark)), max_documents)


def find_files(data: CorpusSection, split: str) -> tuple[str, ...] | None:
    """Return the local files of a split, None if there are none because `datasets` must find the data.

    Raises ValueError if a pattern finds no file.
    """
    if data.dataset_name not in FILE_FORMATS:
        return None
    patterns = data.model_dump(mode="json")["data_files"]
    if isinstance(patterns, dict):
        patterns = patterns[split.partition("[")[0]]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if any("://" in pattern for pattern in patterns):
        return None
    found = {
        pattern: sorted(file for file in glob(pattern, recursive=True) if Path(file).is_file()) for pattern in patterns
    }
    for pattern, files in found.items():
        if not files:
            raise ValueError(f'data.data_files: "{pattern}" finds no file; correct the path')
    return tuple(dict.fromkeys(file for files in found.values() for file in files))


def describe_corpus(data: CorpusSection, split: str) -> str:
    """Name a split of a corpus, shortly."""
    if data.data_files is None:
        return f"{data.dataset_name} {split}"
    files = data.data_files
    text = str(files if isinstance(files, str) else data.model_dump(mode="json")["data_files"])
    return text if len(text) <= 60 else f"{text[:57]}..."
