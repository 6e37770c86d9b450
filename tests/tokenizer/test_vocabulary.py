import pytest

from transformerlm.tokenizer.vocabulary import (
    BYTE_ORDER,
    SINGLE_BYTES,
    Vocabulary,
    from_printable,
    to_printable,
)


def test_printable_alphabet_is_that_of_gpt2():
    assert to_printable(b" the\n") == "ĠtheĊ"
    assert to_printable("é".encode()) == "Ã©"
    assert to_printable(b"\x00\x7f\xad") == "ĀġŃ"


def test_printable_alphabet_is_one_to_one():
    printable = to_printable(BYTE_ORDER)
    assert len(set(printable)) == 256
    assert from_printable(printable) == BYTE_ORDER
    assert not any(character.isspace() for character in printable)


def test_characters_outside_the_alphabet_are_refused():
    with pytest.raises(ValueError, match="'a b' holds ' ', which stands for no byte"):
        from_printable("a b")


def test_ids_may_be_in_any_order():
    tokens = (b"<|end|>", b"ab", *SINGLE_BYTES)
    vocabulary = Vocabulary(tokens, ((b"a", b"b"),), {"<|end|>": 0})
    assert len(vocabulary) == 258
    assert vocabulary.ordinary_ids()[b"ab"] == 1


@pytest.mark.parametrize(
    ("tokens", "merges", "specials", "message"),
    [
        (SINGLE_BYTES[1:], [], {}, "the byte b'!' has no token"),
        ([*SINGLE_BYTES, b"a"], [], {}, "same token stands at two ids"),
        ([*SINGLE_BYTES, b"ab"], [], {}, r"'ab' \(id 256\) is neither a single byte nor made by a merge"),
        (SINGLE_BYTES, [(b"a", b"b")], {}, "the merge 'a b' needs the token 'ab', which is not an ordinary token"),
        ([*SINGLE_BYTES, b"xab"], [(b"x", b"ab")], {}, "the merge 'x ab' needs the token 'ab'"),
        ([*SINGLE_BYTES, b"ab"], [(b"a", b"b")] * 2, {}, "merged twice"),
        ([*SINGLE_BYTES, b"<|x|>"], [], {"<|x|>": 255}, "said to have id 255, which is not its place"),
        ([*SINGLE_BYTES, b"<|x|>"], [], {"<|x|>": 257}, "said to have id 257"),
        ([*SINGLE_BYTES, "Ġ".encode()], [], {"Ġ": 256}, "'Ġ' is also an ordinary token"),
        ([*SINGLE_BYTES, b"a"], [], {"a": 256}, "'a' is also an ordinary token"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tokens, merges, specials, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(tuple(tokens), tuple(merges), specials)
