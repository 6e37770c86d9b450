from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.tokenizer import Vocabulary
from transformerlm.tokenizer.merging import MergeTable


def _spell(merges, word):
    vocabulary = Vocabulary.from_merges(merges, [])
    return [vocabulary.tokens[id] for id in MergeTable(vocabulary).apply(word)]


def test_the_merge_learned_first_goes_first():
    assert _spell([(b"l", b"o"), (b"o", b"w")], b"low") == [b"lo", b"w"]
    assert _spell([(b"o", b"w"), (b"l", b"o")], b"low") == [b"l", b"ow"]


def test_of_equal_merges_the_leftmost_goes_first():
    assert _spell([(b"a", b"a")], b"aaaaa") == [b"aa", b"aa", b"a"]


def test_a_token_made_whole_by_no_merge_sequence_is_not_used():
    # "abc" is in the vocabulary, but "b c" goes first and "a bc" was never learned.
    assert _spell([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")], b"abc") == [b"a", b"bc"]


def test_two_merges_that_spell_the_same_token_share_its_id():
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")]
    vocabulary = Vocabulary.from_merges(merges, ["<|end|>"])
    assert vocabulary.tokens[256:] == (b"ab", b"bc", b"abc", b"<|end|>")
    assert vocabulary.special_tokens == {"<|end|>": 259}
    assert _spell(merges, b"abc") == [b"abc"]


@st.composite
def _merges_and_word(draw):
    """Draw merges that build on each other in any order, as no trainer would make them, and a word of few letters."""
    tokens = [b"a", b"b", b"c"]
    merges = []
    for _ in range(draw(st.integers(0, 12))):
        merge = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if merge not in merges:
            merges.append(merge)
            tokens.append(merge[0] + merge[1])
    merges = draw(st.permutations(merges))
    word = draw(st.text("abc", min_size=1, max_size=300)).encode()
    return merges, word


@settings(deadline=None, max_examples=300)
@given(_merges_and_word())
def test_heap_equals_scan(merges_and_word):
    merges, word = merges_and_word
    table = MergeTable(Vocabulary.from_merges(merges, []))
    ids = [table._byte_ids[byte] for byte in word]
    assert table._merge_by_heap(list(ids)) == table._merge_by_scanning(list(ids))
