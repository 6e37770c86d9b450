"""The command that makes a vocabulary, and the one that ships."""

import gzip
import hashlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from cli.train_tokenizer import main
from trainkit.data.files import zstd
from transformerlm.tokenizer import Tokenizer

TEXT_CONFIG = "train_tokenizer_text.toml"
NAMES = ["manifest.json", "merges.txt", "special_tokens.json", "vocab.json"]
CORPUS = "the cat and the hat\nand the bat\n\nthe rat sat on the mat<|endoftext|>a dog, a log\n" * 40


@pytest.fixture
def train(run):
    """Train on files; returns the outcome."""

    def call(data_files, *overrides, size=270):
        options = [f"data.data_files={data_files}", "tokenizer.output_dir=made", f"tokenizer.vocab_size={size}"]
        return run(main, TEXT_CONFIG, "data.sample_by=document", *options, *overrides)

    return call


def feed(monkeypatch, data: bytes):
    """Make these bytes standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_the_shipped_tokenizer_is_what_the_command_makes(run):
    outcome = run(main, "train_tokenizer.toml", "tokenizer.output_dir=made")
    assert outcome.code == 0, outcome.err
    shipped = Path("config/resources/tokenizers/stories_4k")
    for name in ("vocab.json", "merges.txt", "special_tokens.json"):
        assert Path("made", name).read_bytes() == (shipped / name).read_bytes()
    made, known = (json.loads((folder / "manifest.json").read_text()) for folder in (Path("made"), shipped))
    for key in ("settings", "corpus", "sha256"):
        assert made[key] == known[key]
    assert "4096 tokens written to made" in outcome.out


def test_own_files_are_learned_from(run):
    Path("a.txt").write_text("the cat and the hat and the bat " * 50)
    Path("b.txt").write_text("the rat sat on the mat " * 50)
    options = ['data.data_files=["a.txt", "b.txt"]', "data.dataset_name=text", "tokenizer.output_dir=made"]
    outcome = run(main, TEXT_CONFIG, *options, "tokenizer.vocab_size=270")
    assert outcome.code == 0, outcome.err
    tokenizer = Tokenizer.load("made")
    assert tokenizer.vocab_size == 270
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"
    assert len(tokenizer.encode("the the the")) <= 4


def test_the_summary_adds_up(train):
    Path("a.txt").write_text(CORPUS)
    outcome = train("a.txt")
    assert outcome.code == 0, outcome.err
    manifest = json.loads(Path("made/manifest.json").read_text())
    corpus, tokenizer = manifest["corpus"], Tokenizer.load("made")
    ids = [id for id in tokenizer.encode(CORPUS) if id != tokenizer.end_of_text_id]
    assert corpus["bytes"] == len(CORPUS.encode())
    assert corpus["tokens"] == len(ids)
    text_bytes = corpus["bytes"] - 40 * len("<|endoftext|>")  # special tokens are not counted
    assert f"{text_bytes / corpus['tokens']:.3f} bytes per token" in outcome.out
    assert f"{corpus['words']:,} words, {corpus['distinct_words']:,} of them distinct" in outcome.out
    assert "longest tokens  ' the'" in outcome.out
    assert "reading" in outcome.out
    assert outcome.err == ""  # no progress bar where nobody looks


def test_the_manifest_describes_the_files_beside_it(train):
    Path("a.txt").write_text(CORPUS)
    assert train("a.txt").code == 0
    assert sorted(os.listdir("made")) == NAMES
    manifest = json.loads(Path("made/manifest.json").read_text())
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256(Path("made", name).read_bytes()).hexdigest() == digest
    assert sorted([*manifest["sha256"], "manifest.json"]) == NAMES
    assert manifest["settings"]["pattern"] == "gpt2"
    assert manifest["settings"]["special_tokens"] == ["<|endoftext|>", "<|mask|>"]
    assert manifest["corpus"]["sha256"] == hashlib.sha256(CORPUS.encode()).hexdigest()
    assert set(manifest["versions"]) >= {"transformerlm", "python", "regex"}


def test_the_same_corpus_gives_the_same_manifest_whatever_the_threads(train):
    Path("a.txt").write_text(CORPUS)
    assert train("a.txt", "tokenizer.threads=1").code == 0
    first = {name: Path("made", name).read_bytes() for name in NAMES}
    assert train("a.txt", "tokenizer.threads=2").code == 0
    assert {name: Path("made", name).read_bytes() for name in NAMES} == first


def test_globs_files_compressed_files_and_standard_input_are_the_same_corpus(train, monkeypatch):
    Path("texts").mkdir()
    Path("texts/a.txt").write_text(CORPUS)
    Path("texts.gz").write_bytes(gzip.compress(CORPUS.encode()))
    Path("texts.zst").write_bytes(zstd.compress(CORPUS.encode()))
    tokenizers = []
    for data_files in ("texts/*.txt", "texts/a.txt", "texts.gz", "texts.zst", "-"):
        feed(monkeypatch, CORPUS.encode())
        outcome = train(data_files)
        assert outcome.code == 0, outcome.err
        tokenizers.append(Tokenizer.load("made"))
    assert all(each == tokenizers[0] for each in tokenizers)


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
def test_standard_input_is_cut_as_files_are(train, monkeypatch, sample_by):
    text = "one two\nthree\n\nfour five\n\n" * 30
    feed(monkeypatch, text.encode())
    assert train("-", f"data.sample_by={sample_by}", size=272).code == 0
    from_input = Tokenizer.load("made")
    Path("a.txt").write_text(text)
    assert train("a.txt", f"data.sample_by={sample_by}", size=272).code == 0
    assert Tokenizer.load("made") == from_input


def test_json_lines_come_in_through_standard_input(train, monkeypatch):
    lines = "".join(json.dumps({"story": "the cat and the hat"}) + "\n" for _ in range(20))
    feed(monkeypatch, lines.encode())
    outcome = train("-", "data.dataset_name=json", "data.text_field=story", size=265)
    assert outcome.code == 0, outcome.err
    feed(monkeypatch, lines.encode() + b'{"tale": "x"}\n')
    outcome = train("-", "data.dataset_name=json", "data.text_field=story", size=265)
    assert outcome.code == 2
    assert 'line 21 is no JSON object with a text "story"' in outcome.err


def test_standard_input_that_is_not_text_is_an_error_with_a_remedy(train, monkeypatch):
    feed(monkeypatch, b"abc\xff")
    outcome = train("-")
    assert outcome.code == 2
    assert "standard input: byte 3 is not UTF-8" in outcome.err
    assert "convert" in outcome.err
    assert not Path("made").exists()


def test_standard_input_cannot_be_mixed_or_be_parquet(train):
    assert "stands alone" in train('["-", "config/x.txt"]').err
    assert "cannot be parquet" in train("-", "data.dataset_name=parquet").err


def test_too_little_text_is_an_error_with_a_remedy(run):
    Path("a.txt").write_text("ab")
    options = ["data.data_files=a.txt", "data.dataset_name=text", "tokenizer.output_dir=made"]
    outcome = run(main, TEXT_CONFIG, *options)
    assert outcome.code == 2
    assert "vocab_size" in outcome.err
    assert not Path("made").exists()


def test_a_folder_with_other_files_is_refused_before_reading(train):
    Path("made").mkdir()
    Path("made/thesis.tex").touch()
    Path("a.txt").write_text(CORPUS)
    outcome = train("a.txt")
    assert outcome.code == 2
    assert "thesis.tex" in outcome.err
    assert os.listdir("made") == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_ctrl_c_leaves_nothing_half_written(start, train, older):
    Path("a.txt").write_text(CORPUS)
    if older:
        assert train("a.txt").code == 0
    before = {name: Path("made", name).read_bytes() for name in os.listdir("made")} if older else {}
    read_end, write_end = os.pipe()  # standard input that never ends
    options = ["data.data_files=-", "data.sample_by=document", "tokenizer.output_dir=made", "tokenizer.vocab_size=270"]
    arguments = [part for option in options for part in ("--set", option)]
    process = start(
        "-m", "cli.train_tokenizer", "--config", f"config/resources/{TEXT_CONFIG}", *arguments, stdin=read_end
    )
    for _ in range(100):
        os.write(write_end, CORPUS.encode())  # more than a pipe holds: afterwards the command is surely at work
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    os.close(read_end), os.close(write_end)
    assert process.returncode == 130, err
    assert "interrupted: nothing was written" in err
    assert "Traceback" not in err
    assert out == ""
    assert ({name: Path("made", name).read_bytes() for name in os.listdir("made")} if older else {}) == before
    assert sorted(os.listdir(".")) == ["a.txt", "config", *(["made"] if older else [])]
