"""The benchmark compares only what is equal, and says when ours loses."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarking.bench_tokenizer import Benchmark, Plan, Row, cut_text, prepare_corpus
from benchmarking.tokenizer_differences import count_pairs, describe_difference, explain_merges, merge_word
from benchmarking.tokenizer_peers import LIBRARIES, installed_libraries
from benchmarking.tokenizer_report import describe_check, format_rows, summarize
from benchmarking.tokenizer_tasks import OURS, TASKS, TOKENIZER_JSON, split_documents
from benchmarking.tokenizer_worker import Outcome
from cli.bench_tokenizer import main
from transformerlm.tokenizer import train_bpe

TEXT = "the cat's hat, the bat and 12 rats\n\n  of Ärger 猫<|endoftext|>" * 60
CONFIG = Path(__file__).parent.parent.parent / "config" / "resources" / "bench_tokenizer.toml"


@pytest.fixture
def corpus(tmp_path):
    return prepare_corpus(tmp_path, "text", TEXT, 2000, train_bpe([TEXT], 285, ["<|endoftext|>"]))


def row(library, *seconds, task="encode", megabytes=100.0):
    """Return a measured row."""
    return Row(library, task, "way", 1, [Outcome(0.1, seconds, megabytes, "digest", 1)])


def plan(tasks, backend="python"):
    return Plan(tasks, (1,), 1, 1, 60.0, 285, backend)


def test_texts_are_cut_after_a_document():
    assert cut_text("aé<|endoftext|>bcd<|endoftext|>", 25) == "aé<|endoftext|>"
    assert cut_text("éé", 3) == "é"
    assert cut_text("abc", 3) == "abc"
    assert "".join(split_documents(TEXT)) == TEXT


def test_words_are_merged_as_the_tokenizer_does():
    tokenizer = train_bpe([TEXT], 285, [])
    ranks = {left + right: rank for rank, (left, right) in enumerate(tokenizer.vocabulary.merges)}
    for word in (" the", "cat", "Ärger", " rats", "猫"):
        assert merge_word(word.encode(), ranks) == [tokenizer.token_bytes(id) for id in tokenizer.encode(word)]


def test_pairs_are_counted_within_words_only():
    assert count_pairs("ab ab<|endoftext|>ab", []) == {b"ab": 3, b" a": 1}
    assert count_pairs("abc abc", [b"ab"]) == {b"abc": 2, b" ab": 1}


def test_other_merges_are_excused_by_a_tie_only():
    ours, text = [b"ba"], "ab ba"  # "ab", "ba" and " b" occur once each
    assert explain_merges([b"ab"], ours, text, "ties differ") == (
        "",
        "ties differ: other merges from merge 0 on, 0 of 1 tokens the same",
    )
    assert "merges differ" in explain_merges([b"ab"], ours, text, None)[0]
    assert "merges differ" in explain_merges([b"ab"], ours, "ab ba ba", "ties differ")[0]
    assert "learned 0 tokens, ours 1" in explain_merges([], ours, text, "ties differ")[0]


def test_a_difference_is_located():
    first, second = (np.array(ids, np.uint32).tobytes() for ids in ([1, 2, 3], [1, 9, 3, 4]))
    assert describe_difference("encode", first, second) == "differs from ours from token 1 on (3 against 4 tokens)"
    assert describe_difference("decode", b"abc", b"ab") == "differs from ours from byte 2 on (3 against 2 bytes)"


def test_losses_are_called_losses(corpus):
    tables = [[row(OURS, 2.0, 1.0), row("gigatoken", 1.0, 3.0), row("tiktoken", 4.0, 2.0, megabytes=50.0)]]
    lines = summarize(tables)
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "encode, first pass 0.50x as fast as gigatoken (way): SLOWER",
        "encode, repeated 2.00x as fast as tiktoken (way): faster",
        "encode, memory 2.00x that of tiktoken (way)",
    ]
    assert "0.50x / 3.00x as fast, 1.00x the memory" in format_rows(tables[0], corpus)[3]


def test_what_differs_takes_no_part_in_the_summary(corpus):
    wrong = row("gigatoken", 0.1, 0.1)
    wrong.problem = "differs"
    assert summarize([[row(OURS, 2.0, 1.0), wrong]]) == []
    assert "not compared: differs" in format_rows([row(OURS, 2.0, 1.0), wrong], corpus)[3]
    assert describe_check([row(OURS, 1.0), wrong], corpus)[1] == "encode: gigatoken way: differs"


def test_ours_comes_first_and_knows_every_task():
    assert next(iter(installed_libraries())) == OURS
    assert next(iter(LIBRARIES)) == OURS


@pytest.mark.long
@pytest.mark.slow
def test_every_installed_tokenizer_gives_the_same_ids(corpus):
    rows = Benchmark(plan(TASKS), corpus, tuple(installed_libraries())).check()
    assert {row.task for row in rows if row.library == "tokenizers"} == set(TASKS)
    assert [row for row in rows if row.problem] == []


@pytest.mark.slow
def test_other_ids_are_found_before_anything_is_timed(corpus):
    path = corpus.folder / TOKENIZER_JSON
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:5]
    path.write_text(json.dumps(content))
    benchmark = Benchmark(plan(("encode",)), corpus, (OURS, "tokenizers"))
    checked = benchmark.check()
    assert "differs from ours from token" in checked[1].problem
    (rows,) = benchmark.measure(checked)
    assert len(rows[0].outcomes) == 1
    assert rows[1].outcomes == []


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_json(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    overrides = ["benchmark.megabytes=0.3", "benchmark.vocab_size=400", "benchmark.rounds=1", "benchmark.passes=1"]
    overrides += ["benchmark.threads=[1]", 'benchmark.backend="python"', 'benchmark.tasks=["encode","file","train"]']
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["--config", str(CONFIG), "--json", str(figures), *arguments]) == 0
    out = capsys.readouterr().out
    assert "bytes per token" in out
    assert "train: text file -> vocabulary, 1 thread" in out
    tables = json.loads(figures.read_text())["tables"]
    assert [rows[0]["task"] for rows in tables] == ["encode", "file", "train"]
    assert all(rows[0]["first_s_median"] > 0 and rows[0]["peak_megabytes_median"] > 0 for rows in tables)


def test_a_text_that_is_not_there_is_an_error_with_a_remedy(capsys):
    assert main(["--config", str(CONFIG), "--set", "benchmark.text=nowhere.txt"]) == 2
    assert "benchmark.text: no such file: nowhere.txt" in capsys.readouterr().err
