"""--set, and how tables are laid over each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.overrides import OverrideError, merge, parse_value, read_overrides
from config.roots import InferConfig, TrainConfig


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("True", "True"),
        ('"3"', "3"),
        ("bfloat16", "bfloat16"),
        ("[1, 2]", [1, 2]),
        ("[1, 2", "[1, 2"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_a_value_is_toml_or_else_text(text, value):
    parsed = parse_value(text)
    assert (parsed, type(parsed)) == (value, type(value))


@given(st.text())
def test_any_text_is_some_value(text):
    parse_value(text)


def test_the_last_one_wins_and_sections_nest():
    arguments = ["training.seed=1", "data.tokenizer.vocab_path=a=b", "training.seed = 2"]
    assert read_overrides(arguments, TrainConfig) == {
        "training": {"seed": 2},
        "data": {"tokenizer": {"vocab_path": "a=b"}},
    }


@pytest.mark.parametrize("argument", ["training.seed", "=3", "training.=3", ".seed=3", ""])
def test_an_argument_without_key_or_value_is_refused(argument):
    with pytest.raises(OverrideError, match=r"must look like section\.key=value, for example"):
        read_overrides([argument], TrainConfig)


@pytest.mark.parametrize("number", ["2024", "1e3", "true", "2024-01-31"])
def test_where_text_belongs_a_number_stays_text(number):
    assert read_overrides([f"logging.run_name={number}"], TrainConfig) == {"logging": {"run_name": number}}
    assert read_overrides([f"inference.prompt={number}"], InferConfig) == {"inference": {"prompt": number}}


def test_another_choice_drops_the_keys_of_the_former_one():
    base = {"objective": {"name": "masked_diffusion", "noise_epsilon": 0.1, "typo": 1}, "training": {"seed": 1}}
    merged = merge(base, {"objective": {"name": "autoregressive"}}, TrainConfig)
    assert merged == {"objective": {"name": "autoregressive", "typo": 1}, "training": {"seed": 1}}


def test_another_choice_keeps_the_keys_that_both_have():
    base = {"data": {"pipeline_mode": "rows", "pad_token_id": 1, "dataset_name": "x", "tokenizer": {"vocab_path": "v"}}}
    merged = merge(base, {"data": {"pipeline_mode": "packed"}}, TrainConfig)
    assert merged["data"] == {"pipeline_mode": "packed", "dataset_name": "x", "tokenizer": {"vocab_path": "v"}}


def test_a_choice_and_its_keys_come_together():
    base = {"objective": {"name": "autoregressive"}}
    over = read_overrides(["objective.noise_epsilon=0.5", "objective.name=masked_diffusion"], TrainConfig)
    assert merge(base, over, TrainConfig)["objective"] == {"name": "masked_diffusion", "noise_epsilon": 0.5}


def test_merging_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, over, None) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})
