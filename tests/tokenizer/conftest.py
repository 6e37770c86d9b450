"""A small tokenizer, a text worth tokenizing, and Hugging Face's reading of the same files."""

import pytest
import tokenizers

from transformerlm.tokenizer import Tokenizer, train_bpe

# One special token is the beginning of another, one holds spaces, and two can overlap ("<|end|>x|>").
SPECIAL_TOKENS = ["<|endoftext|>", "<|mask|>", "<|end|>", "<|end|><|end|>", "<| two words |>", ">x|>"]

SAMPLE_TEXT = """\
The quick brown fox jumps over the lazy dog. It's what foxes do; they're quick, aren't they? I'll say: they've 123 ways.
"Once upon a time," said the fox's mother,\r\n\t"there were 3,141,592 little rivers...   and all of them ran to sea!"

Der schnelle braune Fuchs springt über den faulen Hund. Größe, Äpfel, Öl – naïve café, cliche\u0301s.
Быстрая коричневая лиса перепрыгивает через ленивую собаку. שועל חום מהיר. ثعلب بني سريع.
素早い茶色の狐がのろまな犬を飛び越える。\u3000敏捷的棕色狐狸跳过了懒狗。 빠른 갈색 여우가 게으른 개를 뛰어넘는다.
👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷  def f(x): return x**2 + 0.5 == (x >> 1)  # ======== -------- ________
The little fox and the little dog then lived happily, and the quick days were followed by quick and happy nights.
"""


@pytest.fixture(scope="session")
def sample_text() -> str:
    return SAMPLE_TEXT


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe([SAMPLE_TEXT], 600, SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def hugging_face(tokenizer, tmp_path_factory) -> tokenizers.Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    model = tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    peer = tokenizers.Tokenizer(model)
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.decoder = tokenizers.decoders.ByteLevel()
    peer.add_special_tokens(list(tokenizer.special_tokens))
    return peer
