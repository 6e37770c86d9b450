import pickle
import subprocess
import sys
import time
import unicodedata
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer import Tokenizer, Vocabulary, train_bpe
from transformerlm.tokenizer.vocabulary import SINGLE_BYTES

# Characters whose class has been the same since Unicode 3.2: peers ship different versions of the tables.
_OLD_CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(
    lambda character: unicodedata.ucd_3_2_0.category(character) == unicodedata.category(character) != "Cn"
)
_PIECES = st.one_of(
    st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\x00", "\x1c", "\x85", "\u3000", "\u0301", "\u200d", "😀", "🏽"]),
    st.sampled_from(["the", " fox", "über", "é", "12", "==", "'", "'s", "'ll", "'LL", "日本"]),
    st.sampled_from(["<|endoftext|>", "<|end|>", "<|", "|>", ">x|>", "<| two words |>", "<| two"]),
)
TEXTS = st.lists(st.one_of(_PIECES, st.text(_OLD_CHARACTERS, max_size=4)), max_size=20).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_encode_equals_hugging_face(tokenizer, hugging_face, text):
    assert tokenizer.encode(text) == hugging_face.encode(text).ids


def test_encode_equals_hugging_face_on_prose(tokenizer, hugging_face, sample_text):
    text = sample_text * 20
    assert tokenizer.encode(text) == hugging_face.encode(text).ids


@settings(deadline=None, max_examples=200)
@given(ids=st.lists(st.integers(0, 593), max_size=30))
def test_decode_equals_hugging_face(tokenizer, hugging_face, ids):
    assert tokenizer.decode(ids) == hugging_face.decode(ids, skip_special_tokens=False)


@settings(deadline=None, max_examples=200)
@given(text=st.one_of(st.text(), TEXTS), allowed=st.sampled_from(["all", "none", {"<|end|>"}]))
def test_decoding_an_encoded_text_gives_it_back(tokenizer, text, allowed):
    assert tokenizer.decode(tokenizer.encode(text, allowed)) == text


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", r"\w+", r"(?P<word>[a-z]+)|(\d)", "x*"])
def test_every_pattern_keeps_the_whole_text(sample_text, pattern):
    tokenizer = train_bpe([sample_text], 300, [], pattern)
    assert tokenizer.decode(tokenizer.encode(sample_text + "\n \n")) == sample_text + "\n \n"


def test_empty_text_has_no_tokens(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert list(tokenizer.encode_iterable([])) == list(tokenizer.encode_iterable(["", ""])) == []
    assert list(tokenizer.decode_stream([])) == []


def test_encode_batch_encodes_each_text(tokenizer):
    texts = ["the fox", "", "<|end|> 12"]
    assert tokenizer.encode_batch(texts, "none") == [tokenizer.encode(text, "none") for text in texts]


# --- chunks and files


@settings(deadline=None, max_examples=300)
@given(data=st.data(), text=TEXTS, block_bytes=st.integers(1, 20), allowed=st.sampled_from(["all", "none"]))
def test_encode_iterable_equals_the_whole_text_however_it_is_cut(tokenizer, data, text, block_bytes, allowed):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(tokenizer.encode_iterable(chunks, allowed, block_bytes)) == tokenizer.encode(text, allowed)


@settings(deadline=None)
@given(text=TEXTS)
def test_encode_iterable_equals_the_whole_text_in_single_characters(tokenizer, text):
    assert list(tokenizer.encode_iterable(text, block_bytes=1)) == tokenizer.encode(text)


def test_encode_iterable_holds_little_of_an_endless_text(tokenizer):
    def endless():
        while True:
            yield "the little fox "

    ids = tokenizer.encode_iterable(endless())
    expected = tokenizer.encode("the little fox " * 10)[:-1]  # the last space belongs to the next word
    assert [next(ids) for _ in expected] == expected


def test_encode_file_equals_encode_of_its_text(tokenizer, sample_text, tmp_path):
    path = tmp_path / "corpus.txt"
    text = (sample_text + "<|endoftext|>\r\n") * 150  # several blocks
    path.write_bytes(text.encode())
    ids = tokenizer.encode_file(path)
    assert ids.dtype == tokenizer.id_dtype == np.uint16
    assert ids.tolist() == tokenizer.encode(text)


def test_encode_file_of_an_empty_file_is_an_empty_array(tokenizer, tmp_path):
    (tmp_path / "empty.txt").touch()
    ids = tokenizer.encode_file(tmp_path / "empty.txt")
    assert ids.shape == (0,)
    assert ids.dtype == np.uint16


def test_ids_that_do_not_fit_16_bits_get_32():
    pairs = list(product(SINGLE_BYTES, repeat=2))
    largest_of_16_bits = Tokenizer(Vocabulary.from_merges(pairs[: 2**16 - 256], []))
    one_more = Tokenizer(Vocabulary.from_merges(pairs[: 2**16 - 255], []))
    assert (largest_of_16_bits.vocab_size, largest_of_16_bits.id_dtype) == (2**16, np.uint16)
    assert (one_more.vocab_size, one_more.id_dtype) == (2**16 + 1, np.uint32)


# --- special tokens


def _spell(tokenizer, text, allowed="all"):
    return [tokenizer.token_bytes(id).decode() for id in tokenizer.encode(text, allowed)]


def test_special_tokens_match_leftmost_then_longest(tokenizer):
    assert _spell(tokenizer, "<|end|><|end|><|end|>") == ["<|end|><|end|>", "<|end|>"]
    assert _spell(tokenizer, "<|end|>x|>")[0] == "<|end|>"  # although ">x|>" lies inside
    assert _spell(tokenizer, "<|endoftext|>") == ["<|endoftext|>"]
    assert "<| two words |>" in _spell(tokenizer, "a<| two words |>b")


def test_special_tokens_not_allowed_are_plain_text(tokenizer):
    text = "<|endoftext|><|mask|>"
    specials = set(tokenizer.special_tokens.values())
    assert not specials & set(tokenizer.encode(text, "none"))
    assert not specials & set(tokenizer.encode(text, set()))
    assert specials & set(tokenizer.encode(text, ["<|mask|>"])) == {tokenizer.mask_id}


def test_unknown_allowed_special_tokens_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"'<\|pad\|>' is not a special token of this tokenizer; it has '<\|endoftext"):
        tokenizer.encode("text", {"<|pad|>"})
    with pytest.raises(ValueError, match="'all', 'none' or a set of special tokens, not 'some'"):
        tokenizer.encode("text", "some")


def test_named_ids_are_those_of_the_special_tokens(tokenizer):
    assert tokenizer.encode("<|endoftext|><|mask|>") == [tokenizer.end_of_text_id, tokenizer.mask_id]
    bare = Tokenizer(Vocabulary.from_merges([], []))
    assert bare.mask_id is None
    with pytest.raises(ValueError, match=r"no special token '<\|endoftext\|>'; train it with one"):
        _ = bare.end_of_text_id


# --- decoding


def test_decode_stream_never_emits_half_a_character(tokenizer):
    emoji = "👩🏽"
    ids = [id for byte in emoji.encode() for id in _ids_of_byte(tokenizer, byte)]
    assert len(ids) == 8
    assert list(tokenizer.decode_stream(ids)) == ["👩", "🏽"]
    assert list(tokenizer.decode_stream(ids[:3])) == ["\ufffd"]


def _ids_of_byte(tokenizer, byte):
    return [id for id in range(256) if tokenizer.token_bytes(id) == bytes([byte])]


@settings(deadline=None, max_examples=300)
@given(ids=st.lists(st.integers(0, 599), max_size=30))
def test_decode_stream_joined_equals_decode(tokenizer, ids):
    pieces = list(tokenizer.decode_stream(ids))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert all(pieces)


def test_decode_stream_is_lazy(tokenizer):
    def ids():
        yield from tokenizer.encode("fox")
        raise AssertionError("read on before handing out what was there")

    assert next(tokenizer.decode_stream(ids())) in "fox"


def test_decode_bytes_keeps_what_is_not_utf8(tokenizer):
    ids = [id for byte in (0xFF, 0x00) for id in _ids_of_byte(tokenizer, byte)]
    assert tokenizer.decode_bytes(ids) == b"\xff\x00"
    assert tokenizer.decode(ids) == "\ufffd\x00"


@pytest.mark.parametrize("id", [-1, 600, 10**9])
def test_ids_outside_the_vocabulary_are_refused_by_name(tokenizer, id):
    for decode in (tokenizer.decode, tokenizer.decode_bytes, lambda ids: list(tokenizer.decode_stream(ids))):
        with pytest.raises(ValueError, match=rf"token id {id} is not in the vocabulary.* 0 to 599"):
            decode([0, id])


def test_decode_takes_numpy_integers(tokenizer):
    assert tokenizer.decode(np.array(tokenizer.encode("the fox"), dtype=np.uint16)) == "the fox"


def test_lone_surrogates_are_refused_with_their_place(tokenizer):
    with pytest.raises(ValueError, match=r"lone surrogate U\+D83D at character 4.*repair it with") as raised:
        tokenizer.encode("fox \ud83d")
    assert not isinstance(raised.value, UnicodeError)
    with pytest.raises(ValueError, match="lone surrogate"):
        list(tokenizer.encode_iterable(["fox \ud83d", "\ude00"]))


# --- the object


def test_equality_and_fingerprint_follow_everything_that_decides_the_ids(tokenizer):
    vocabulary = tokenizer.vocabulary
    specials = list(vocabulary.special_tokens)
    same = Tokenizer(Vocabulary.from_merges(vocabulary.merges, specials))
    assert same == tokenizer
    assert hash(same) == hash(tokenizer)
    assert same.fingerprint() == tokenizer.fingerprint()
    others = [
        Vocabulary.from_merges(vocabulary.merges[:-1], specials),
        Vocabulary.from_merges(vocabulary.merges, specials[::-1]),
        Vocabulary.from_merges(vocabulary.merges, specials, "cl100k"),
    ]
    for other in map(Tokenizer, others):
        assert other != tokenizer
        assert other.fingerprint() != tokenizer.fingerprint()
    assert tokenizer != "tokenizer"


def test_repr_says_what_it_is(tokenizer):
    assert repr(tokenizer).startswith("Tokenizer(vocab_size=600, pattern='gpt2', special tokens: '<|endoftext|>',")


def test_pickling_carries_no_cache(tokenizer):
    size_before = len(pickle.dumps(tokenizer))
    tokenizer.encode(" ".join(map(str, range(10_000))))
    assert len(pickle.dumps(tokenizer)) == size_before
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer


def test_the_word_cache_is_bounded_and_changes_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr("transformerlm.tokenizer.tokenizer.MAX_CACHED_WORDS", 10)
    text = " ".join(map(str, range(1000))) + " " + "x" * 1000
    fresh = Tokenizer(tokenizer.vocabulary)
    assert fresh.encode(text) == fresh.encode(text) == tokenizer.encode(text)
    assert 0 < len(fresh._ids_of_word) <= 10
    assert max(map(len, fresh._ids_of_word)) <= 64


@pytest.mark.parametrize("repeated", ["a", " ", "=", "😀", "ab"])
def test_a_long_word_takes_near_linear_time(repeated):
    tokenizer = train_bpe([repeated * 2000], 262, [])
    text = repeated * (200_000 // len(repeated))
    started = time.process_time()
    ids = tokenizer.encode(text)
    assert len(ids) < len(text.encode()) / 8
    assert time.process_time() - started < 10  # the simple loop would take hours
    assert tokenizer.decode(ids) == text


def test_importing_the_tokenizer_does_not_import_torch():
    program = "import sys, transformerlm.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
