"""tiktoken's rank files: its ids, special tokens included, and a refusal where they could not be had."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.helpers import CORPUS, TEXTS
from transformerlm.interop.splitting import LLAMA3, expression_of
from transformerlm.interop.tiktoken_ranks import find_merges, from_ranks, read_tiktoken, to_ranks, write_tiktoken
from transformerlm.tokenizer import Tokenizer, Vocabulary, train_bpe

tiktoken = pytest.importorskip("tiktoken", reason="an independent reference")
load_tiktoken_bpe = pytest.importorskip("tiktoken.load").load_tiktoken_bpe

SPECIALS = ["<|endoftext|>", "<|mask|>", "a b"]


def load_there(tokenizer: Tokenizer):
    vocabulary = tokenizer.vocabulary
    return tiktoken.Encoding(
        "ours",
        pat_str=expression_of(vocabulary.pattern),
        mergeable_ranks=to_ranks(vocabulary),
        special_tokens=vocabulary.special_tokens,
    )


@pytest.fixture(scope="module")
def pairs(make_tokenizer):
    patterns = ["gpt2", "gpt2_digits", "cl100k", "o200k", LLAMA3]
    return [(each, load_there(each)) for each in (make_tokenizer(pattern, SPECIALS) for pattern in patterns)]


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, which=st.integers(0, 4))
def test_ids_are_those_of_tiktoken(pairs, text, which):
    ours, theirs = pairs[which if text.isascii() else 0]
    assert theirs.encode(text, allowed_special="all") == ours.encode(text)
    assert theirs.encode_ordinary(text) == ours.encode(text, "none")


@settings(deadline=None, max_examples=80)
@given(corpus=st.text("abcd ", min_size=20, max_size=200), text=st.text("abcd ", max_size=80))
def test_learned_merges_and_ranks_say_the_same(corpus, text):
    ours = train_bpe([corpus + " abcd bcda cdab dabc acbd bdca" * 2], 275, ["<|endoftext|>"])
    assert find_merges(to_ranks(ours.vocabulary)) == list(ours.vocabulary.merges)
    assert load_there(ours).encode(text) == ours.encode(text)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", LLAMA3])
def test_files_are_read_by_both(make_tokenizer, tmp_path, pattern):
    ours, path = make_tokenizer(pattern, SPECIALS), tmp_path / "ours.tiktoken"
    write_tiktoken(ours, path)
    assert read_tiktoken(path) == ours
    settings_beside = json.loads((tmp_path / "ours.tiktoken.json").read_text())
    theirs = tiktoken.Encoding("x", mergeable_ranks=load_tiktoken_bpe(str(path)), **settings_beside)
    assert theirs.encode(CORPUS + "<|mask|>", allowed_special="all") == ours.encode(CORPUS + "<|mask|>")


def test_a_bare_rank_file_needs_its_pattern_and_special_tokens(make_tokenizer, tmp_path):
    ours, path = make_tokenizer("gpt2", SPECIALS), tmp_path / "ours.tiktoken"
    write_tiktoken(ours, path)
    (tmp_path / "ours.tiktoken.json").unlink()
    with pytest.raises(ValueError, match="neither the pattern nor the special tokens"):
        read_tiktoken(path)
    assert read_tiktoken(path, "gpt2", ours.special_tokens) == ours


def test_merges_that_ranks_cannot_express_are_refused():
    # "abc" is learned from "a" and "bc", although ranks would already have joined "ab".
    vocabulary = Vocabulary.from_merges([(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")], [])
    with pytest.raises(ValueError, match="tiktoken, which merges by rank alone, would give other ids"):
        to_ranks(vocabulary)


def test_special_tokens_that_tiktoken_confuses_are_refused(make_tokenizer):
    with pytest.raises(ValueError, match=r"'<.end' is the beginning of '<.endoftext.>'"):
        to_ranks(make_tokenizer("gpt2").vocabulary)


def test_ranks_that_merges_cannot_express_are_refused():
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"xyz": 256}
    with pytest.raises(ValueError, match="never makes the token 'xyz'"):
        from_ranks(ranks, {}, "gpt2")


@pytest.mark.parametrize(("specials", "message"), [({"<s>": 3}, "of another token"), ({"<s>": 300}, "no token has id")])
def test_special_tokens_must_have_ids_of_their_own(specials, message):
    ranks = {bytes([byte]): byte for byte in range(256)}
    with pytest.raises(ValueError, match=message):
        from_ranks(ranks, specials, "gpt2")


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "x.tiktoken").write_text("YQ== 0\nYg== one\n")
    with pytest.raises(ValueError, match="line 2: expected"):
        read_tiktoken(tmp_path / "x.tiktoken", "gpt2", {})
