import json
import os
from pathlib import Path

import pytest

from transformerlm.tokenizer import Tokenizer, train_bpe

FILES = ["merges.txt", "special_tokens.json", "vocab.json"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three files: merges on lines 2 ("h e") to 5, two special tokens at the end."""
    train_bpe(["the then them he"], 262, ["<|endoftext|>", "<| ö |>"]).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def _edit_vocab(folder, change):
    path = folder / "vocab.json"
    ids = json.loads(path.read_text(encoding="utf-8"))
    change(ids)
    path.write_text(json.dumps(ids), encoding="utf-8")


def test_a_saved_tokenizer_loads_as_itself(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == FILES
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    assert loaded == tokenizer
    assert loaded.fingerprint() == tokenizer.fingerprint()
    loaded.save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "new" / "folder" / name).read_bytes()


@pytest.mark.parametrize("pattern", ["cl100k", r"\p{L}+|[^\p{L}]+"])
def test_the_pattern_is_saved_with_the_vocabulary(tmp_path, pattern):
    train_bpe(["the fox"], 258, [], pattern).save(tmp_path)
    assert Tokenizer.load(tmp_path).vocabulary.pattern == pattern


def test_the_files_look_as_documented(folder):
    assert json.loads((folder / "special_tokens.json").read_text(encoding="utf-8")) == {
        "pattern": "gpt2",
        "special_tokens": ["<|endoftext|>", "<| ö |>"],
    }
    assert (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[:3] == ["#version: 0.2", "h e", "t he"]
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert list(ids.values()) == list(range(262))
    assert (ids["!"], ids["Ġ"], ids["he"], ids["<| ö |>"]) == (0, 220, 256, 261)


def test_files_may_lie_apart_and_special_tokens_be_a_bare_list(folder, tmp_path):
    (folder / "special_tokens.json").write_text('["<|endoftext|>", "<| ö |>"]', encoding="utf-8")
    (folder / "merges.txt").rename(tmp_path / "other.txt")
    loaded = Tokenizer.from_files(folder / "vocab.json", tmp_path / "other.txt", folder / "special_tokens.json")
    assert loaded == train_bpe(["the then them he"], 262, ["<|endoftext|>", "<| ö |>"])


def test_line_ends_of_windows_and_a_missing_header_are_read(folder):
    expected = Tokenizer.load(folder)
    path = folder / "merges.txt"
    lines = path.read_bytes().removeprefix(b"#version: 0.2\n")
    path.write_bytes(lines.replace(b"\n", b"\r\n"))
    assert Tokenizer.load(folder) == expected


def test_a_merge_of_number_signs_is_no_header(tmp_path):
    train_bpe(["####"], 258, []).save(tmp_path)
    assert Tokenizer.load(tmp_path).vocabulary.merges == ((b"#", b"#"), (b"##", b"##"))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: no such file; a tokenizer is three files"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", '{"a": 0,\n', r"vocab.json, line 2, column 1: broken JSON"),
        ("vocab.json", "[]", "vocab.json: expected an object that maps tokens to ids, found a list"),
        ("vocab.json", '{"a": 0, "a": 1}', "vocab.json: the key 'a' occurs twice"),
        ("vocab.json", '{"a": 1.0}', "vocab.json: token 'a' has id 1.0; an id is an integer"),
        ("vocab.json", '{"a": -1}', "vocab.json: token 'a' has id -1; an id is an integer"),
        ("vocab.json", '{"a": true}', "vocab.json: token 'a' has id True; an id is an integer"),
        ("special_tokens.json", "{", "special_tokens.json, line 1, column 2: broken JSON"),
        ("special_tokens.json", '{"<|a|>": 1}', 'special_tokens.json: expected {"pattern": "gpt2", "special_tokens"'),
        ("special_tokens.json", "[1]", "special_tokens.json: a special token must be a text .*, not 1"),
        ("special_tokens.json", '["<|pad|>"]', r"'<\|pad\|>' has no id in .*vocab.json; add it there as 262"),
        (
            "special_tokens.json",
            '{"pattern": "gtp2", "special_tokens": ["<|endoftext|>", "<| ö |>"]}',
            "special_tokens.json: unknown pattern 'gtp2'; choose gpt2",
        ),
        ("special_tokens.json", '["<|endoftext|>"]', "holds ' ', which stands .*; if it is a special token, list it"),
        ("special_tokens.json", '["<| ö |>"]', r"do not fit: token '<\|endoftext\|>' \(id 260\) is neither"),
        ("special_tokens.json", '["<|endoftext|>", "<| ö |>", "<| ö |>"]', r"special_tokens.json: .*given twice"),
        (
            "special_tokens.json",
            '["<|endoftext|>", "<| ö |>", "he"]',
            "merges.txt, line 2: .* 'he', which is not an ordinary",
        ),
        ("merges.txt", "#version: 0.2\nh e\nthe\n", "merges.txt, line 3: expected two tokens with one space .*'the'"),
        ("merges.txt", "h  e\n", "merges.txt, line 1: expected two tokens"),
        ("merges.txt", "h e\n\nh \u4e00\n", "merges.txt, line 3: '\u4e00' holds .* stands for no byte"),
        (
            "merges.txt",
            "h e\nz z\n",
            "merges.txt, line 2: the merge 'z z' needs the token 'zz', which is not an ordinary token of .*vocab.json",
        ),
        ("merges.txt", "h e\nt he\nh e\n", "merges.txt, line 3: repeats line 1"),
        ("merges.txt", "h e\n", "do not fit: token 'the' .* is neither a single byte nor made by a merge"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_line(folder, name, content, message):
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(folder)


def test_ids_with_gaps_and_doubles_are_refused(folder):
    _edit_vocab(folder, lambda ids: ids.update({"a": 1000}))
    with pytest.raises(ValueError, match=r"vocab.json: no token has id \d+, yet there are larger ones"):
        Tokenizer.load(folder)
    _edit_vocab(folder, lambda ids: ids.update({"a": 5}))
    with pytest.raises(ValueError, match=r"vocab.json: tokens '.' and '.' both have id 5"):
        Tokenizer.load(folder)


def test_a_file_that_is_not_utf8_is_refused_with_the_place(folder, tmp_path):
    (folder / "merges.txt").write_bytes(b"h e\n\xff")
    with pytest.raises(ValueError, match=r"merges.txt: byte 4 is not UTF-8 .*; convert"):
        Tokenizer.load(folder)


def test_a_failed_write_leaves_the_old_file_and_no_other(folder, monkeypatch):
    before = {name: (folder / name).read_bytes() for name in FILES}

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        train_bpe(["other text"], 260, []).save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_are_utf8_whatever_the_locale(folder):
    assert "ö".encode() in (folder / "special_tokens.json").read_bytes()
    assert "Ġ".encode() in (folder / "vocab.json").read_bytes()
