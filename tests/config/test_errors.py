"""What users read when a configuration is wrong: each message, word for word."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config.errors import ConfigProblems, Written, explain
from config.io import load_for_command
from config.roots import BenchInferConfig, TrainConfig

TRAIN_SHAPE = {"vocab_size": 320, "context_length": 64, "d_model": 48, "num_layers": 2, "num_heads": 6}


OBJECTIVES = '"autoregressive", "masked_diffusion", "block_diffusion" and "joint"'


def lines_of(table, root=TrainConfig):
    with pytest.raises(ValidationError) as refused:
        root.model_validate(table)
    return explain(refused.value, root, Written(table))


def lines_of_file(path, *overrides):
    with pytest.raises(ConfigProblems) as refused:
        load_for_command(path, TrainConfig, overrides, with_files=False)
    return refused.value.lines


@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("training", "batch_sise", 16, "training.batch_sise: unknown setting; did you mean batch_size?"),
        ("training", "batch_size", 0, "training.batch_size: must be an integer > 0, got 0"),
        (
            "training",
            "batch_size",
            "16",
            'training.batch_size: must be an integer > 0, got "16"; write 16, without quotes',
        ),
        ("training", "batch_size", 1.5, "training.batch_size: must be an integer > 0, got 1.5"),
        ("training", "batch_size", [1], "training.batch_size: must be an integer > 0, got [1]"),
        (
            "training",
            "compile",
            "True",
            'training.compile: must be true or false, got "True"; write true, without quotes',
        ),
        ("training", "device", "gpu", 'training.device: must be "auto", "cpu" or "cuda", got "gpu"'),
        (
            "training",
            "precision",
            "bf16",
            'training.precision: must be "auto", "float32", "bfloat16" or "float16", got "bf16"',
        ),
        (
            "training",
            "precision",
            "Float32",
            'training.precision: must be "auto", "float32", "bfloat16" or "float16", got "Float32"; '
            'did you mean "float32"?',
        ),
        ("logging", "run_name", 3, "logging.run_name: must be text, got 3"),
        ("logging", "runs_path", "", 'logging.runs_path: must be text, not empty, got ""'),
        (
            "logging",
            "backends",
            ["console", "mlflow"],
            'logging.backends: must be a list of "console", "tensorboard" or "wandb", got ["console", "mlflow"]',
        ),
        ("sampling", "prompts", "Once", 'sampling.prompts: must be a list of text, got "Once"; write ["Once"]'),
        ("sampling", "top_p", 1.5, "sampling.top_p: must be a number > 0 and <= 1, got 1.5"),
        ("optimizer", "betas", [0.9], "optimizer.betas: must be a list of 2: each number >= 0 and < 1, got [0.9]"),
        ("optimizer", "name", "sgd", 'optimizer.name: this version offers "adamw" and "muon", got "sgd"'),
        ("ddp", "nproc_per_node", "all", 'ddp.nproc_per_node: must be an integer > 0 or "auto", got "all"'),
        (
            "data",
            "data_files",
            [3],
            "data.data_files: must be text, list of text or table of text or list of text, got [3]",
        ),
        (
            "objective",
            "name",
            "pairs",
            f'objective.name: this version offers {OBJECTIVES}, got "pairs"',
        ),
        (
            "objective",
            "name",
            "autoregresive",
            f'objective.name: this version offers {OBJECTIVES}, got "autoregresive"; did you mean "autoregressive"?',
        ),
        (
            "objective",
            "noise_epsilon",
            0.1,
            'objective.noise_epsilon: unknown setting; it belongs to name = "masked_diffusion", '
            '"block_diffusion" or "joint", remove it',
        ),
        ("sampling", "d_model", 3, "sampling.d_model: unknown setting; did you mean model.d_model?"),
        (
            "wandb",
            "zzz",
            3,
            "wandb.zzz: unknown setting; known here: entity, project, mode, log_checkpoints, finish_timeout_s",
        ),
    ],
)
def test_a_wrong_key_is_explained(train_table, section, key, value, line):
    train_table.setdefault(section, {})[key] = value
    assert lines_of(train_table) == [line]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"modle": {}}, "modle: unknown section; did you mean model?"),
        ({"batch_size": 3}, "batch_size: unknown section; did you mean training.batch_size?"),
        ({"training": 3}, "training: must be a table [training], got 3"),
        ({"objective": 3}, "objective: must be a table [objective], got 3"),
        ({"objective": {}}, f"objective.name: required; this version offers {OBJECTIVES}"),
    ],
)
def test_a_wrong_section_is_explained(train_table, changes, line):
    assert lines_of(train_table | changes) == [line]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("training", "training: required; add a table [training] with max_steps, batch_size"),
        (
            "objective",
            'objective: required; add a table [objective] with name = "autoregressive", "masked_diffusion", '
            '"block_diffusion" or "joint"',
        ),
        (
            "training.max_steps",
            "training.max_steps: required; set it to an integer > 0 (Length of the training [optimizer steps])",
        ),
        (
            "data.tokenizer.vocab_path",
            "data.tokenizer.vocab_path: required; set it to text, not empty (vocab.json: each token and its id)",
        ),
    ],
)
def test_what_is_missing_is_explained(train_table, path, line):
    *sections, key = path.split(".")
    table = train_table
    for name in sections:
        table = table[name]
    del table[key]
    assert lines_of(train_table) == [line]


def test_all_problems_are_reported_at_once(train_table):
    train_table["model"] |= {"num_heads": 5, "num_layers": 0}
    train_table["training"] |= {"batch_sise": 3}
    train_table["optimizer"] |= {"warmup_steps": 100}
    del train_table["data"]["dataset_name"]
    paths = [line.partition(":")[0] for line in lines_of(train_table)]
    assert sorted(paths) == [
        "data.dataset_name",
        "model.num_heads",
        "model.num_layers",
        "optimizer.warmup_steps",
        "training.batch_sise",
    ]


def test_a_rule_over_whole_sections_is_explained():
    assert lines_of({}, BenchInferConfig) == [
        "checkpoint: nothing to measure; add [checkpoint] with a path, or both [model] and [objective]"
    ]


def test_the_optional_objective_of_a_benchmark_is_explained():
    random = {"model": TRAIN_SHAPE, "objective": {"name": "pairs"}}
    assert lines_of(random, BenchInferConfig) == [f'objective.name: this version offers {OBJECTIVES}, got "pairs"']
    random["objective"] = {"name": "masked_diffusion", "noise_epsilon": 2}
    assert lines_of(random, BenchInferConfig) == ["objective.noise_epsilon: must be a number > 0 and < 1, got 2"]


def test_a_default_that_waits_for_a_wrong_key_is_no_problem_of_its_own(train_table):
    train_table["model"]["num_heads"] = "six"
    assert lines_of(train_table) == ['model.num_heads: must be an integer > 0, got "six"']


def test_long_values_are_cut(train_table):
    train_table["training"]["device"] = "x" * 1000
    assert lines_of(train_table)[0].endswith("xxx ...")
    assert len(lines_of(train_table)[0]) < 200


class TestOrigins:
    def test_values_of_set_are_named_as_such(self, train_file):
        assert lines_of_file(train_file, "training.batch_size=0", "training.batch_sise=4", "seed=3") == [
            "training.batch_size: must be an integer > 0, got 0 (from --set)",
            "training.batch_sise: unknown setting (from --set); did you mean batch_size?",
            "seed: unknown section (from --set); did you mean training.seed?",
        ]

    def test_a_broken_rule_names_the_value_that_came_from_set(self, train_file):
        assert lines_of_file(train_file, "model.num_heads=5")[0].endswith("or change d_model (from --set)")
        assert lines_of_file(train_file, "model.d_model=50")[0].endswith("(model.d_model from --set)")

    def test_values_of_a_base_name_its_file(self, write_toml, train_table):
        train_table["training"]["max_steps"] = 0
        base = write_toml(train_table, "base.toml")
        top = write_toml('extends = "base.toml"\n[training]\nbatch_size = 0', "top.toml")
        assert lines_of_file(top) == [
            f"training.max_steps: must be an integer > 0, got 0 (from {base})",
            "training.batch_size: must be an integer > 0, got 0",
        ]

    def test_a_choice_made_by_set_is_named(self, train_file):
        assert lines_of_file(train_file, "objective.name=pairs") == [
            f'objective.name: this version offers {OBJECTIVES}, got "pairs" (from --set)'
        ]

    def test_a_key_below_a_value_is_explained(self, train_file):
        assert lines_of_file(train_file, "training.seed.x=3") == [
            "training.seed: must be an integer >= 0 and < 9223372036854775808, got { x = 3 } (from --set)"
        ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "seed", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(["model", "objective", "optimizer", "training", "data", "sampling", "ddp", "zz"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, VALUES | st.dictionaries(st.sampled_from(["name", "seed", "steps"]), VALUES, max_size=3)))
def test_whatever_is_given_is_explained(changes):
    try:
        TrainConfig.model_validate(changes)
    except ValidationError as error:
        lines = explain(error, TrainConfig, Written(changes))
        assert lines
        assert all(": " in line for line in lines)
