"""The files that a configuration names."""

import json

import pytest

from config.checks import check_files
from config.roots import InferConfig, TrainConfig, TrainTokenizerConfig


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Start in an empty folder that has a tokenizer of 320 tokens."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(["<|endoftext|>", "<|mask|>"])
    return tmp_path


def write_tokenizer(specials, size=320):
    with open("vocab.json", "w", encoding="utf-8") as file:
        json.dump({f"t{token}": token for token in range(size)}, file)
    with open("special.json", "w", encoding="utf-8") as file:
        json.dump({"pattern": "gpt2", "special_tokens": specials}, file)
    with open("merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n")


@pytest.fixture
def check(train_table):
    """Return a function that changes sections of a training configuration and checks its files."""

    def run(**sections):
        for name, keys in sections.items():
            train_table[name] = train_table.get(name, {}) | keys
        return check_files(TrainConfig(**train_table))

    return run


def test_a_configuration_whose_files_are_there_has_no_problems(check):
    assert check(objective={"name": "masked_diffusion"}) == []


def test_each_missing_tokenizer_file_is_named(check, folder):
    (folder / "vocab.json").unlink()
    (folder / "special.json").unlink()
    assert check() == [
        f"data.tokenizer.vocab_path: no such file: vocab.json below {folder}; make one with "
        "transformerlm-train-tokenizer, or correct the path",
        f"data.tokenizer.special_tokens_path: no such file: special.json below {folder}; make one with "
        "transformerlm-train-tokenizer, or correct the path",
    ]


def test_another_size_of_vocabulary_is_named_with_the_remedy(check):
    assert check(model={"vocab_size": 300}) == [
        "model.vocab_size: 300, but the tokenizer vocab.json has 320 tokens; set model.vocab_size = 320"
    ]


def test_diffusion_needs_a_mask_token_and_prediction_does_not(check):
    write_tokenizer(["<|endoftext|>"])
    assert check() == []
    assert check(objective={"name": "masked_diffusion"}) == [
        'data.tokenizer.special_tokens_path: special.json has no <|mask|>, which objective.name = "masked_diffusion" '
        "needs; train a tokenizer with it in tokenizer.special_tokens"
    ]


def test_a_document_needs_an_end(check):
    write_tokenizer([])
    assert "has no <|endoftext|>, which training needs" in check()[0]


@pytest.mark.parametrize(("content", "found"), [("{", "is not a JSON table"), ("[]", "is not a JSON table")])
def test_a_broken_vocabulary_is_named(check, folder, content, found):
    (folder / "vocab.json").write_text(content)
    assert found in check()[0]


@pytest.mark.parametrize("content", ["3", '{"special_tokens": 3}', "no json"])
def test_a_broken_list_of_special_tokens_is_named(check, folder, content):
    (folder / "special.json").write_text(content)
    assert "special.json lists no tokens" in check()[0]


class TestDataFiles:
    def test_what_finds_nothing_is_named_with_its_split(self, check, folder):
        (folder / "a.txt").write_text("words")
        files = {"train": ["*.txt", "b/*.txt"], "validation": "c.txt"}
        assert check(data={"dataset_name": "text", "data_files": files}) == [
            f'data.data_files.train: "b/*.txt" finds no file below {folder}; correct the path',
            f'data.data_files.validation: "c.txt" finds no file below {folder}; correct the path',
        ]

    def test_a_folder_is_not_its_files(self, check, folder):
        (folder / "texts").mkdir()
        problem = check(data={"dataset_name": "text", "data_files": {"train": "texts/", "validation": "texts"}})[0]
        assert problem == f'data.data_files.train: "texts/" is a folder below {folder}; write "texts/*"'

    def test_an_empty_corpus_is_named(self, check, folder):
        (folder / "a.text").touch()
        problem = check(data={"dataset_name": "text", "data_files": {"train": "*.text", "validation": "*.json"}})[0]
        assert problem == (
            'data.data_files.train: "*.text" is empty, there is nothing to learn from; name files with text'
        )

    def test_two_stars_look_into_folders(self, check, folder):
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "c.text").write_text("words")
        assert check(data={"dataset_name": "text", "data_files": {"train": "**/*.text", "validation": "a/**"}}) == []

    def test_addresses_are_left_to_whoever_fetches_them(self, check):
        files = {"train": "hf://datasets/x/*.json", "validation": "https://example.org/b.json"}
        assert check(data={"dataset_name": "json", "data_files": files}) == []


def test_megatron_needs_four_files(check, folder, train_table):
    train_table["data"] = {
        "pipeline_mode": "megatron",
        "megatron_train_prefix": "train",
        "megatron_val_prefix": "val",
        "tokenizer": train_table["data"]["tokenizer"],
    }
    (folder / "train.bin").touch()
    assert [problem.partition(" below")[0] for problem in check()] == [
        "data.megatron_train_prefix: no such file: train.idx",
        "data.megatron_val_prefix: no such file: val.bin",
        "data.megatron_val_prefix: no such file: val.idx",
    ]


def test_what_is_resumed_exists(check, folder):
    assert check(checkpointing={"resume_from": "latest"}) == [
        'checkpointing.resume_from: no run or checkpoint at runs/latest; set it to "" to start anew'
    ]
    (folder / "runs" / "latest").mkdir(parents=True)
    assert check(checkpointing={"resume_from": "latest"}) == []


def test_a_missing_checkpoint_says_how_to_get_one(folder):
    assert check_files(InferConfig()) == [
        f"checkpoint.path: no run or checkpoint at runs/latest below {folder}; train one first "
        "(transformerlm-train --config config/resources/train.toml), or correct the path"
    ]


def test_a_tokenizer_is_not_written_over_a_file(folder):
    (folder / "out").touch()
    (folder / "a.txt").write_text("words")
    config = TrainTokenizerConfig(
        data={"dataset_name": "text", "data_files": "a.txt"}, tokenizer={"vocab_size": 300, "output_dir": "out"}
    )
    assert check_files(config) == ["tokenizer.output_dir: out is a file; choose a folder"]
