"""tokenizer.json: the ids of Hugging Face's `tokenizers` on every input tried, or a refusal."""

import copy
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.helpers import CORPUS, SPECIALS, TEXTS
from transformerlm.interop.splitting import LLAMA3, QWEN2
from transformerlm.interop.tokenizer_json import (
    ForeignTokenizerError,
    from_tokenizer_json,
    read_gpt2,
    read_tokenizer_json,
    to_tokenizer_json,
    write_tokenizer_json,
)
from transformerlm.tokenizer import Tokenizer, train_bpe
from transformerlm.tokenizer.pretokenize import PATTERNS

ALL_PATTERNS = [*PATTERNS, LLAMA3, QWEN2]
SHIPPED = Path(__file__).parent.parent.parent / "config" / "resources" / "tokenizers" / "stories_4k"


def load_there(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(tokenizer.vocabulary)))


@pytest.fixture(scope="module")
def pairs(make_tokenizer):
    return [(tokenizer, load_there(tokenizer)) for tokenizer in map(make_tokenizer, ALL_PATTERNS)]


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, which=st.integers(0, len(ALL_PATTERNS) - 1))
def test_ids_are_those_of_hugging_face(pairs, text, which):
    ours, theirs = pairs[which if text.isascii() else 0]  # the others know other versions of Unicode: see splitting.py
    ids = ours.encode(text)
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


@settings(deadline=None, max_examples=30)
@given(corpus=st.text("abc de'1\né", min_size=30, max_size=200), text=st.text("abc de'1\né", max_size=60))
def test_ids_are_equal_for_any_learned_vocabulary(corpus, text):
    ours = train_bpe([corpus + "abcde abd 11"], 263, ["<|endoftext|>", "<é>"])
    assert load_there(ours).encode(text).ids == ours.encode(text)


@pytest.mark.slow
def test_every_character_of_unicode_is_cut_alike(make_tokenizer):
    ours = make_tokenizer("gpt2")
    theirs = load_there(ours)
    planes = [*range(0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE01F0)]  # nothing is assigned elsewhere
    characters = [chr(code) for code in planes]
    for start in range(0, len(characters), 64):
        text = "".join(f"a{each}b {each}1{each} " for each in characters[start : start + 64])
        pieces = [text[slice(*span)] for _, span in theirs.pre_tokenizer.pre_tokenize_str(text)]
        assert pieces == ours._pretokenizer.split(text)


@pytest.mark.parametrize("pattern", ALL_PATTERNS)
def test_reading_what_was_written_gives_the_same_tokenizer(make_tokenizer, tmp_path, pattern):
    tokenizer = make_tokenizer(pattern)
    write_tokenizer_json(tokenizer, tmp_path / "tokenizer.json", start_token="<|endoftext|>")
    assert read_tokenizer_json(tmp_path / "tokenizer.json") == tokenizer
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("the cat").ids == [tokenizer.end_of_text_id, *tokenizer.encode("the cat")]
    assert theirs.encode("the cat", add_special_tokens=False).ids == tokenizer.encode("the cat")


def test_a_tokenizer_trained_there_is_read_here(tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,  # they come first there, and last here
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([CORPUS], trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_tokenizer_json(tmp_path / "tokenizer.json")
    assert ours.encode(CORPUS + "<|mask|>") == theirs.encode(CORPUS + "<|mask|>").ids
    assert ours.special_tokens == {special: place for place, special in enumerate(SPECIALS)}


def test_merges_as_older_files_write_them_are_read(make_tokenizer):
    tokenizer = make_tokenizer("gpt2")
    content = to_tokenizer_json(tokenizer.vocabulary)
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["pre_tokenizer"].pop("use_regex")  # true by default
    assert Tokenizer(from_tokenizer_json(content)) == tokenizer


def test_special_tokens_behind_the_vocabulary_are_read(make_tokenizer):
    tokenizer = make_tokenizer("gpt2")
    content = to_tokenizer_json(tokenizer.vocabulary)
    for special in SPECIALS:
        del content["model"]["vocab"][special]
    assert Tokenizer(from_tokenizer_json(content)) == tokenizer


def test_gpt2_files_are_read(tmp_path):
    shipped = Tokenizer.load(SHIPPED)
    vocabulary = json.loads((SHIPPED / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_bytes((SHIPPED / "merges.txt").read_bytes())
    read = read_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt", list(shipped.special_tokens))
    assert read == shipped
    with pytest.raises(ValueError, match=r"<\|mask\|>.*list it among the special tokens"):
        read_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")


REFUSED = {
    "its model is WordPiece": lambda c: c["model"].update(type="WordPiece"),
    "its BPE has dropout = 0.1": lambda c: c["model"].update(dropout=0.1),
    "its BPE has byte_fallback = True": lambda c: c["model"].update(byte_fallback=True),
    r"its normalizer \(NFC\) changes the text": lambda c: c.update(normalizer={"type": "NFC"}),
    r"its pre-tokenizer \(ByteLevel add_prefix_space = True": lambda c: c["pre_tokenizer"].update(
        add_prefix_space=True
    ),
    r"its pre-tokenizer \(Metaspace": lambda c: c.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁"}),
    r"its pre-tokenizer \(none\)": lambda c: c.update(pre_tokenizer=None),
    "'<.mask.>' has lstrip = true": lambda c: c["added_tokens"][1].update(lstrip=True),
    "'<.mask.>' is not special": lambda c: c["added_tokens"][1].update(special=False),
    "some of its added tokens are normalized": lambda c: c["added_tokens"][1].update(normalized=True),
    "ids have no gaps": lambda c: c["added_tokens"][3].update(id=10_000, content="<new>"),
    "the id 7 is both": lambda c: c["added_tokens"][3].update(id=7, content="<new>"),
    "ignore_merges = true, and its merges do not make": lambda c: (
        c["model"].update(ignore_merges=True),
        c["model"]["merges"].reverse(),
    ),
    "cannot be read as byte-level BPE": lambda c: c["model"].pop("vocab"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_give_other_ids_is_refused(make_tokenizer, tmp_path, message):
    content = copy.deepcopy(to_tokenizer_json(make_tokenizer("gpt2").vocabulary))
    REFUSED[message](content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ForeignTokenizerError, match=message) as refusal:
        read_tokenizer_json(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_ignored_merges_are_fine_where_merging_makes_every_token(make_tokenizer):
    tokenizer = make_tokenizer("gpt2")
    content = to_tokenizer_json(tokenizer.vocabulary)
    content["model"]["ignore_merges"] = True
    assert Tokenizer(from_tokenizer_json(content)) == tokenizer


def test_a_pattern_of_ones_own_is_refused():
    tokenizer = train_bpe(["some text of words"], 260, [], r"\w+|\W+")
    with pytest.raises(ValueError, match="no form known to cut alike"):
        to_tokenizer_json(tokenizer.vocabulary)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ForeignTokenizerError, match=r"not a readable tokenizer\.json"):
        read_tokenizer_json(tmp_path / "tokenizer.json")
