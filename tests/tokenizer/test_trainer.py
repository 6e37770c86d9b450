import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer import Tokenizer, train_bpe, train_bpe_on_files
from transformerlm.tokenizer.pretokenize import Pretokenizer


def learn_merges_naively(documents, num_merges, special_tokens=()):
    """Count everything anew for each merge: too slow to use, too simple to be wrong."""
    words = Counter()
    for document in documents:
        for part in re.split("|".join(map(re.escape, special_tokens)), document) if special_tokens else [document]:
            words.update(tuple(bytes([byte]) for byte in word.encode()) for word in Pretokenizer("gpt2").split(part))
    merges = []
    while len(merges) < num_merges:
        counts = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        words = Counter({_join(word, best): count for word, count in words.items()})
    return merges


def _join(word, pair):
    joined = list(word)
    for position in range(len(word) - 1):
        if tuple(joined[position : position + 2]) == pair:
            joined[position : position + 2] = [b"".join(pair), b""]
    return tuple(token for token in joined if token)


@settings(deadline=None, max_examples=150)
@given(
    documents=st.lists(st.text("abAé .\n", min_size=1, max_size=60), min_size=1, max_size=6),
    num_merges=st.integers(0, 40),
)
def test_merges_equal_a_naive_trainer(documents, num_merges):
    expected = learn_merges_naively(documents, num_merges)
    assert len({left + right for left, right in expected}) == len(expected)  # no two merges spell one token
    assert list(train_bpe(documents, 256 + len(expected), []).vocabulary.merges) == expected


def test_merges_equal_a_naive_trainer_on_prose(sample_text):
    expected = learn_merges_naively([sample_text], 400)
    tokenizer = train_bpe([sample_text], 656, [])
    assert list(tokenizer.vocabulary.merges) == expected


def test_ties_go_to_the_greatest_pair_of_byte_strings():
    def first_merge(text):
        return train_bpe([text], 257, []).vocabulary.merges[0]

    assert first_merge("ab ba") == (b"b", b"a")
    assert first_merge("ac ab") == (b"a", b"c")  # also against (b" ", b"a"), which is smaller
    assert first_merge("éz") == (b"\xc3", b"\xa9")  # bytes compare unsigned


def test_of_tied_pairs_a_longer_token_is_greater_than_its_prefix():
    # After "a b" has merged, "ab x" and "a x" occur equally often.
    tokenizer = train_bpe(["abx\nabx\nax\nax\nab"], 258, [])
    assert tokenizer.vocabulary.merges == ((b"a", b"b"), (b"ab", b"x"))


def test_the_vocabulary_is_bytes_then_merges_then_special_tokens():
    tokenizer = train_bpe(["aaaa aaaa"], 260, ["<|endoftext|>", "<|mask|>"])
    assert [tokenizer.token_bytes(id) for id in (0, 1, 188, 220, 255)] == [b"!", b'"', b"\x00", b" ", b"\xad"]
    assert [tokenizer.token_bytes(id) for id in range(256, 260)] == [b"aa", b"aaaa", b"<|endoftext|>", b"<|mask|>"]


def test_special_tokens_neither_merge_nor_count():
    with_special = train_bpe(["ab<|end|>ab<|end|>" * 50 + "the the the"], 261, ["<|end|>", "<|e"])
    assert with_special.vocabulary.merges == ((b"a", b"b"), (b"t", b"h"), (b"th", b"e"))
    assert train_bpe(["x<|end|>y"] * 9 + ["pq"], 258, ["<|end|>"]).vocabulary.merges == ((b"p", b"q"),)


def test_pretokens_do_not_reach_across_documents():
    assert train_bpe(["a", "b"] * 10 + ["xy"], 257, []).vocabulary.merges == ((b"x", b"y"),)


def test_other_patterns_count_other_pretokens():
    numbers = ["1234 1234 1234"]
    assert train_bpe(numbers, 260, [], "gpt2").vocabulary.tokens[-1] == b" 1234"
    assert train_bpe(numbers, 258, [], "cl100k").vocabulary.tokens[-1] == b"123"


def test_documents_are_read_once_and_lazily():
    documents = iter(["the fox", "the dog"])
    assert train_bpe(documents, 258, []).vocab_size == 258
    assert next(documents, None) is None


def test_progress_counts_bytes_then_merges():
    calls = []
    train_bpe(["über", "über alles"], 259, [], on_progress=lambda *call: calls.append(call))
    assert calls == [(16, 0), (16, 1), (16, 2), (16, 3)]


def test_training_on_files_equals_training_on_their_texts(sample_text, tmp_path):
    texts = [
        sample_text * 100,  # more than one block
        "the fox's dog<|endoftext|>and more",
    ]
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    from_files = train_bpe_on_files(paths, 400, ["<|endoftext|>"])
    assert from_files == train_bpe(texts, 400, ["<|endoftext|>"])


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=200))
def test_a_vocabulary_as_large_as_the_corpus_allows_makes_each_pretoken_one_token(text):
    merges = learn_merges_naively([text], 10_000)
    tokenizer = train_bpe([text], 256 + len(merges), [])
    assert len(tokenizer.encode(text)) == len(Pretokenizer("gpt2").split(text))


@pytest.mark.parametrize(
    ("documents", "vocab_size", "special_tokens", "message"),
    [
        (["text"], 257, ["<|a|>", "<|b|>"], "vocab_size 257 is too small for 256 bytes and 2 special .* 258 or more"),
        ([], 300, [], "no text besides special tokens; check the input"),
        (["", "<|a|>"], 300, ["<|a|>"], "no text besides special tokens"),
        (["text"], 300, ["<|a|>", "<|a|>"], r"'<\|a\|>' is given twice"),
        (["text"], 300, [""], "at least one character, not ''"),
        (["text"], 300, "<|a|>", r"must be a list of texts, not one text; write \['<\|a\|>'\]"),
        (["text"], 300, ["\ud800"], "no UTF-8 form"),
        (["text"], 300, ["t"], "'t' is also an ordinary token"),
        (["text text"], 300, [], "too small for 300 tokens: after 260 every pretoken .* set vocab_size to 260 or add"),
        (["fine", "not \ud800"], 300, [], r"document 2: .*lone surrogate U\+D800 at character 4"),
    ],
)
def test_impossible_requests_are_refused_with_a_remedy(documents, vocab_size, special_tokens, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(documents, vocab_size, special_tokens)


def test_the_size_named_in_the_refusal_works():
    with pytest.raises(ValueError, match="set vocab_size to 261 or add"):
        train_bpe(["text text"], 300, ["<|a|>"])
    assert isinstance(train_bpe(["text text"], 261, ["<|a|>"]), Tokenizer)
