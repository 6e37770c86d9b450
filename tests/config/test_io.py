"""Reading: files, extends, TOML errors. Writing: what is written can be read."""

import pytest
import tomli
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config.errors import ConfigProblems
from config.io import ConfigFileError, dump_toml, load_config, load_for_command, parse_toml
from config.roots import (
    BenchInferConfig,
    BenchTokenizerConfig,
    BenchTrainConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    InferConfig,
    PrepareDataConfig,
    SweepConfig,
    TrainConfig,
    TrainTokenizerConfig,
)

ROOTS = {
    "infer": InferConfig,
    "eval": EvalConfig,
    "train_tokenizer": TrainTokenizerConfig,
    "bench_infer": BenchInferConfig,
    "bench_train": BenchTrainConfig,
    "prepare_data": PrepareDataConfig,
    "bench_tokenizer": BenchTokenizerConfig,
    "sweep": SweepConfig,
    "export": ExportConfig,
    "import": ImportConfig,
}

# Keys that no rule relates to others, so that every combination is valid.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FREE_KEYS = {
    "model.rope_theta": st.floats(1.0, 1e7),
    "model.norm_eps": st.floats(1e-12, 1.0),
    "model.d_ff": st.integers(1, 10_000),
    "model.qk_norm": st.booleans(),
    "model.attention_backend": st.sampled_from(["mha", "sdpa"]),
    "optimizer.betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
    "optimizer.max_learning_rate": st.floats(1e-12, 10.0),
    "training.seed": st.integers(0, 2**40),
    "training.precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "data.dataset_config": TEXT,
    "data.tokenizer.vocab_path": TEXT.filter(bool),
    "sampling.prompts": st.lists(TEXT, max_size=3),
    "sampling.steps": st.integers(1, 1000),
    "ddp.nproc_per_node": st.integers(1, 8) | st.just("auto"),
    "logging.backends": st.lists(st.sampled_from(["console", "wandb"]), max_size=2),
    "wandb.entity": TEXT,
}


def as_argument(path, value):
    """Return `path=value` as --set takes it."""
    return f"{path}={tomli_w.dumps({'value': value}).removeprefix('value = ').rstrip()}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.fixed_dictionaries({}, optional=FREE_KEYS))
def test_a_printed_configuration_loads_to_an_equal_one(write_toml, train_file, changes):
    config = load_config(train_file, TrainConfig, [as_argument(path, value) for path, value in changes.items()])
    for path, value in changes.items():
        written = tomli.loads(dump_toml(config))
        for key in path.split("."):
            written = written[key]
        assert written == value
    assert load_config(write_toml(dump_toml(config), "printed.toml"), TrainConfig) == config


@pytest.mark.parametrize("mode", ["rows", "megatron"])
def test_other_pipelines_can_be_printed_and_loaded(write_toml, train_table, mode):
    prefixes = {"megatron_train_prefix": "a", "megatron_val_prefix": "b", "tokenizer": train_table["data"]["tokenizer"]}
    keys = prefixes if mode == "megatron" else train_table["data"] | {"pad_token_id": 0}
    train_table["data"] = keys | {"pipeline_mode": mode}
    config = load_config(write_toml(train_table), TrainConfig)
    assert load_config(write_toml(dump_toml(config)), TrainConfig) == config


def test_every_shipped_configuration_loads_and_prints(root, write_toml):
    names = sorted((root / "config" / "resources").glob("*.toml"))
    assert len(names) >= 7
    for path in names:
        schema = next((schema for prefix, schema in ROOTS.items() if path.stem.startswith(prefix)), TrainConfig)
        config = load_config(path, schema)
        assert load_config(write_toml(dump_toml(config)), schema) == config, path


def test_the_diffusion_configuration_differs_in_what_it_must_only(root):
    resources = root / "config" / "resources"
    plain, diffusion = (load_config(resources / f"{name}.toml", TrainConfig) for name in ("train", "train_diffusion"))
    assert diffusion.objective.name == "masked_diffusion"
    assert (plain.data, plain.logging) == (diffusion.data, diffusion.logging)


class TestExtends:
    def test_bases_are_relative_to_the_file_and_may_extend_others(self, tmp_path, write_toml, train_table):
        (tmp_path / "deep").mkdir()
        write_toml(train_table, "base.toml")
        write_toml('extends = "../base.toml"\n[training]\nseed = 3\nmax_steps = 7', "deep/middle.toml")
        top = write_toml('extends = "deep/middle.toml"\n[training]\nmax_steps = 9', "top.toml")
        training = load_config(top, TrainConfig, ["training.batch_size=5"]).training
        assert (training.seed, training.max_steps, training.batch_size) == (3, 9, 5)

    def test_a_circle_is_refused_and_shown(self, write_toml):
        first = write_toml('extends = "second.toml"', "first.toml")
        write_toml('extends = "first.toml"', "second.toml")
        with pytest.raises(ConfigFileError, match=r"circle: .*first\.toml -> .*second\.toml -> .*first\.toml; remove"):
            load_config(first, TrainConfig)

    def test_a_missing_base_says_who_wants_it(self, write_toml):
        path = write_toml('extends = "bass.toml"', "top.toml")
        write_toml("", "base.toml")
        pattern = r"bass\.toml: no such file \(extended by .*top\.toml\); did you mean .*base\.toml\?"
        with pytest.raises(ConfigFileError, match=pattern):
            load_config(path, TrainConfig)

    @pytest.mark.parametrize("value", ["3", '""', '["a.toml"]'])
    def test_it_names_a_file(self, write_toml, value):
        with pytest.raises(ConfigFileError, match="extends must be the path of a file"):
            load_config(write_toml(f"extends = {value}"), TrainConfig)


class TestBadFiles:
    def test_bad_toml_has_line_column_and_a_mark(self):
        with pytest.raises(ConfigFileError) as refused:
            parse_toml("[training]\nprecision = bfloat16\n", "my.toml")
        assert str(refused.value) == (
            "my.toml, line 2, column 13: invalid value; text needs quotes\n    precision = bfloat16\n                ^"
        )

    def test_an_open_quote_is_named(self):
        with pytest.raises(ConfigFileError, match=r"line 1, column 7: .*; close the quotes"):
            parse_toml('a = "b\n', "my.toml")

    def test_an_error_at_the_end_has_a_line_too(self):
        with pytest.raises(ConfigFileError, match=r"my\.toml, line \d, column \d+: "):
            parse_toml("a = [1,\n", "my.toml")

    @given(st.text())
    def test_any_text_is_a_table_or_an_error_with_its_place(self, text):
        try:
            assert isinstance(parse_toml(text, "my.toml"), dict)
        except ConfigFileError as error:
            message = str(error)
        else:
            return
        assert message.startswith("my.toml, line ")

    def test_a_missing_file_suggests_its_neighbour(self, train_file):
        with pytest.raises(ConfigFileError, match=r"confg\.toml: no such file; did you mean .*config\.toml\?"):
            load_config(train_file.with_name("confg.toml"), TrainConfig)

    def test_a_missing_file_lists_its_folder(self, train_file):
        with pytest.raises(ConfigFileError, match=r"this folder has config\.toml"):
            load_config(train_file.with_name("zzz"), TrainConfig)

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(ConfigFileError, match="there is no folder"):
            load_config(tmp_path / "none" / "config.toml", TrainConfig)

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(ConfigFileError, match="is a directory; give the path of a TOML file"):
            load_config(tmp_path, TrainConfig)

    def test_other_encodings_are_named(self, tmp_path):
        path = tmp_path / "latin.toml"
        path.write_bytes("a = 'é'".encode("latin-1"))
        with pytest.raises(ConfigFileError, match=r"not UTF-8 text \(byte 5\); save it as UTF-8"):
            load_config(path, TrainConfig)

    def test_a_byte_order_mark_is_read_over(self, tmp_path):
        path = tmp_path / "windows.toml"
        path.write_bytes(b"\xef\xbb\xbf[inference]\r\nseed = 3\r\n")
        assert load_config(path, InferConfig).inference.seed == 3


def test_the_library_raises_pydantics_error(train_file):
    with pytest.raises(ValidationError):
        load_config(train_file, TrainConfig, ["training.max_steps=0"])


class TestForCommands:
    def test_every_kind_of_problem_arrives_as_lines(self, train_file, tmp_path):
        for path, overrides, expected in [
            (tmp_path / "none.toml", [], "no such file"),
            (train_file, ["seed"], "must look like section.key=value"),
            (train_file, ["training.max_steps=0"], "training.max_steps: must be an integer > 0, got 0 (from --set)"),
            (train_file, [], "data.tokenizer.vocab_path: no such file"),
        ]:
            with pytest.raises(ConfigProblems) as refused:
                load_for_command(path, TrainConfig, overrides)
            assert expected in refused.value.lines[0]

    def test_printing_needs_no_files(self, train_file):
        assert load_for_command(train_file, TrainConfig, with_files=False).training.max_steps == 100
