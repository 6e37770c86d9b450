import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer.pretokenize import (
    PATTERNS,
    Pretokenizer,
    SpecialTokenFinder,
    resolve_pattern,
)

NO_SPECIALS = SpecialTokenFinder(())

# The expression as GPT-4's was first published; tiktoken's later form differs in whitespace that ends a text.
CL100K_AS_FIRST_PUBLISHED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Few characters of every kind the patterns tell apart, so that all neighbourhoods come up.
TEXTS = st.text("aAsSlLǅʰ日1²'’ .=/-\u0301\n\r\t\x0b\x1c\x85\u3000\u200d😀\x00", max_size=14)


@pytest.mark.parametrize(
    ("text", "pretokens"),
    [
        ("I'm here, they'll go", ["I", "'m", " here", ",", " they", "'ll", " go"]),
        ("don't DON'T", ["don", "'t", " DON", "'", "T"]),
        ("a   b  ", ["a", "  ", " b", "  "]),
        ("a\r\n\tb", ["a", "\r\n", "\t", "b"]),
        ("x=1234!?", ["x", "=", "1234", "!?"]),
        ("one\u0085two\u3000three", ["one", "\u0085", "two", "\u3000", "three"]),
        ("a\x1cb", ["a", "\x1c", "b"]),
        ("e\u0301t", ["e", "\u0301", "t"]),
        ("\x00", ["\x00"]),
        ("", []),
    ],
)
def test_gpt2_pattern_by_example(text, pretokens):
    assert Pretokenizer("gpt2").split(text) == pretokens


def test_gpt4_patterns_by_example():
    assert Pretokenizer("cl100k").split("DON'T 12345\n\n  x") == ["DON", "'T", " ", "123", "45", "\n\n", " ", " x"]
    assert Pretokenizer("cl100k").split("a\n  ") == ["a", "\n  "]
    assert Pretokenizer("o200k").split("helloWorld don't a/b\n") == ["hello", "World", " don't", " a", "/b", "\n"]


def _split_by_hugging_face(pattern, text):
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_patterns_split_as_in_hugging_face(text):
    assert Pretokenizer("gpt2").split(text) == _split_by_hugging_face(PATTERNS["gpt2"], text)
    assert Pretokenizer("o200k").split(text) == _split_by_hugging_face(PATTERNS["o200k"], text)
    text += "a"
    assert Pretokenizer("cl100k").split(text) == _split_by_hugging_face(CL100K_AS_FIRST_PUBLISHED, text)


def test_what_a_custom_pattern_does_not_match_is_kept():
    assert Pretokenizer(r"([a-z])([a-z])").split("-ab--cd") == ["-", "ab", "--", "cd"]
    assert Pretokenizer(r"x*").split("axxb") == ["a", "xx", "b"]


def test_the_expression_of_a_known_pattern_is_known_by_its_name():
    assert resolve_pattern(PATTERNS["o200k"]) == resolve_pattern("o200k") == "o200k"
    assert resolve_pattern(r"\w+|\W") == r"\w+|\W"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("gpt-2", "unknown pattern 'gpt-2'; choose gpt2, cl100k, o200k"), ("", "unknown"), ("(a", "not a regular")],
)
def test_unusable_patterns_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        Pretokenizer(pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(deadline=None, max_examples=500)
@given(text=TEXTS, rest=TEXTS)
@example(text="a don'", rest="t")
@example(text="日本A", rest="b")
@example(text="=\n", rest="\n")
def test_a_stable_cut_changes_no_pretoken_whatever_follows(pattern, text, rest):
    pretokenizer = Pretokenizer(pattern)
    cut = pretokenizer.last_stable_cut(text, len(text))
    whole = text + rest
    assert pretokenizer.split(whole[:cut]) + pretokenizer.split(whole[cut:]) == pretokenizer.split(whole)


@pytest.mark.parametrize("text", ["the fox", "日本，日本", "x1 y2", "- - -", "a\nb"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_ordinary_text_has_stable_cuts(pattern, text):
    assert 0 < Pretokenizer(pattern).last_stable_cut(text, len(text)) < len(text)


SPECIALS = ["ab", "abc d", "bb", "d ab", "<a b>"]


def test_segments_are_in_order_and_never_empty():
    finder = SpecialTokenFinder(SPECIALS)
    segments = list(finder.segments("xab cabc dabb"))
    assert segments == [("x", False), ("ab", True), (" c", False), ("abc d", True), ("ab", True), ("b", False)]
    assert list(finder.segments("")) == []
    assert list(NO_SPECIALS.segments("ab")) == [("ab", False)]


@pytest.mark.parametrize(("text", "place"), [("xab", 1), ("xabc ", 1), ("x<", 1), ("xbb", 2), ("xyz", 3), ("", 0)])
def test_an_unfinished_special_token_is_seen(text, place):
    assert SpecialTokenFinder(SPECIALS).first_undecided(text) == place
