"""The command that makes a vocabulary, and the one that ships."""

from pathlib import Path

from cli.train_tokenizer import main
from transformerlm.tokenizer import Tokenizer


def test_the_shipped_tokenizer_is_what_the_command_makes(run):
    outcome = run(main, "train_tokenizer.toml", "tokenizer.output_dir=made")
    assert outcome.code == 0, outcome.err
    shipped = Tokenizer.load("config/resources/tokenizers/stories_4k")
    assert Tokenizer.load("made") == shipped
    assert shipped.vocab_size == 4096
    assert "4096 tokens written to made" in outcome.out


def test_own_files_are_learned_from(run):
    Path("a.txt").write_text("the cat and the hat and the bat " * 50)
    Path("b.txt").write_text("the rat sat on the mat " * 50)
    options = ['data.data_files=["a.txt", "b.txt"]', "data.dataset_name=text", "tokenizer.output_dir=made"]
    outcome = run(main, "train_tokenizer_text.toml", *options, "tokenizer.vocab_size=270")
    assert outcome.code == 0, outcome.err
    tokenizer = Tokenizer.load("made")
    assert tokenizer.vocab_size == 270
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"
    assert len(tokenizer.encode("the the the")) <= 4


def test_too_little_text_is_an_error_with_a_remedy(run):
    Path("a.txt").write_text("ab")
    options = ["data.data_files=a.txt", "data.dataset_name=text", "tokenizer.output_dir=made"]
    outcome = run(main, "train_tokenizer_text.toml", *options)
    assert outcome.code == 2
    assert "vocab_size" in outcome.err
    assert not Path("made").exists()
