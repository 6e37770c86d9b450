"""Texts that the interchange is tried on."""

from hypothesis import strategies as st

SPECIALS = ["<|endoftext|>", "<|mask|>", "<|end", "a b"]
"""One is the beginning of another; one looks like plain text."""

CORPUS = (
    "The cat's hat isn't where they've left it, 1234 times over 56 years.\n\n  Wir können's nicht 2 mal finden: "
    "日本語のテキスト、и немного по-русски. 😀😀 naïve café e\u0301t\u00e9\tend\r\n"
) * 3 + "the then there these aaaa aaaaaaaa abababab hahaha 0000 1111 ....... ---- \n\n\n\n"

PIECES = [
    *SPECIALS,
    "<|",
    "|>",
    "<|endof",
    " the",
    "'ll",
    "'S",
    "ſ",
    "  ",
    "\r\n",
    "\u3000",
    "\x85",
    "½",
    "٣",
    "é",
    "😀",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(CORPUS, max_size=6), st.text(st.characters(exclude_categories=["Cs"]))),
    max_size=8,
).map("".join)
"""Random Unicode, mixed with what patterns and special tokens tell apart."""
