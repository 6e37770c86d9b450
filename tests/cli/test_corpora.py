"""Corpora opened as their keys say."""

import gzip
import json
from pathlib import Path

import pytest

from cli.corpora import Reading, find_files, open_corpus, read_texts
from config.sections.data import OneSplitSection

TEXTS = [f"Paragraph number {index}." for index in range(40)]


@pytest.fixture
def paragraphs():
    Path("mine.txt").write_text("\n\n".join(TEXTS))
    return OneSplitSection(dataset_name="text", data_files="mine.txt", sample_by="paragraph")


def texts_of(data, split, **options):
    corpus = open_corpus(data, Reading(split, **options))
    return [corpus.decode(record.payload) for record in corpus.records]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", TEXTS),
        ("train[:95%]", TEXTS[:38]),
        ("train[95%:]", TEXTS[38:]),
        ("train[3:5]", TEXTS[3:5]),
        ("train[-2:]", TEXTS[-2:]),
        ("train[:2]+train[10:12]", TEXTS[:2] + TEXTS[10:12]),
    ],
)
def test_slices_of_local_files_are_those_of_datasets(paragraphs, split, expected):
    assert texts_of(paragraphs, split, streaming=False) == expected


def test_files_that_changed_are_prepared_anew(paragraphs):
    assert len(texts_of(paragraphs, "train", streaming=False)) == 40
    Path("mine.txt").write_text("\n\n".join(TEXTS[:7]))
    assert texts_of(paragraphs, "train", streaming=False) == TEXTS[:7]


def test_streamed_and_indexed_documents_are_the_same(paragraphs):
    assert texts_of(paragraphs, "train") == texts_of(paragraphs, "train", streaming=False) == TEXTS


def test_files_come_in_the_order_of_the_patterns_sorted_within_and_once():
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.gz"):
        lines = (json.dumps({"text": name}) + "\n").encode()
        Path(name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    data = OneSplitSection(dataset_name="json", data_files=["c*", "*.jsonl", "a.jsonl"])
    assert find_files(data, "train") == ("c.jsonl.gz", "a.jsonl", "b.jsonl")
    assert list(read_texts(data, "train")) == ["c.jsonl.gz", "a.jsonl", "b.jsonl"]
    assert list(read_texts(data, "train", max_documents=2)) == ["c.jsonl.gz", "a.jsonl"]


def test_addresses_and_datasets_are_left_to_the_library():
    assert find_files(OneSplitSection(dataset_name="json", data_files="hf://datasets/a/b/*.jsonl"), "train") is None
    assert find_files(OneSplitSection(dataset_name="some/dataset"), "train") is None
