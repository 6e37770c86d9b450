"""The schemas: what they refuse, what they fill in, and that they stand alone."""

import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

from config.describe import leaf_paths
from config.roots import BenchInferConfig, InferConfig, PrepareDataConfig, TrainConfig, TrainTokenizerConfig
from config.sections.data import CorpusSection, MegatronSection, PackedSection, TokenizerCorpusSection
from config.sections.generation import GenerationSettings
from config.sections.logging import LoggingSection
from config.sections.model import ModelSection
from config.sections.objective import JointSection, MaskedDiffusionSection
from config.sections.optimizer import AdamWSection
from config.sections.tokenizer import TokenizerSection
from config.sections.training import TrainingSection

ROOTS = (TrainConfig, InferConfig, TrainTokenizerConfig, PrepareDataConfig, BenchInferConfig)
TOKENIZER = {"tokenizer": {"vocab_path": "v", "merges_path": "m", "special_tokens_path": "s"}}
SHAPE = {"vocab_size": 320, "context_length": 64, "d_model": 48, "num_layers": 2, "num_heads": 6}
RANDOM_MODEL = {"model": SHAPE, "objective": {"name": "autoregressive"}}


def problems(section, **keys):
    """Return {dotted path: message} of what a section refuses; defaults that wait for a wrong key left out."""
    with pytest.raises(ValidationError) as refused:
        section(**keys)
    found = [each for each in refused.value.errors() if each["type"] != "default_factory_not_called"]
    return {".".join(map(str, each["loc"])): each["msg"] for each in found}


@pytest.mark.parametrize("root", ROOTS)
def test_every_key_has_a_description(root):
    assert [path for path, field in leaf_paths(root) if not field.description] == []


@pytest.mark.parametrize("root", ROOTS)
def test_an_optional_key_defaults_to_none(root):
    """TOML has no null: a key that could be None but is not by default could not be written back."""
    optional = [(path, field) for path, field in leaf_paths(root) if type(None) in get_args(field.annotation)]
    assert [path for path, field in optional if field.default is not None] == []


def test_the_schemas_import_nothing_heavy():
    code = (
        "import sys, config.io, config.reference;"
        "print({'torch', 'numpy', 'datasets', 'wandb', 'transformerlm', 'trainkit', 'tomli_w'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_sections_are_frozen():
    section = ModelSection(**SHAPE)
    with pytest.raises(ValidationError, match="frozen"):
        section.d_model = 64


@pytest.mark.parametrize(
    ("given", "key"), [("4", "num_layers"), (True, "num_layers"), (1, "qk_norm"), (2.0, "d_model")]
)
def test_values_are_never_converted(given, key):
    assert key in problems(ModelSection, **SHAPE | {key: given})


def test_infinity_is_no_learning_rate():
    assert "max_learning_rate" in problems(AdamWSection, name="adamw", max_learning_rate=float("inf"))


class TestModel:
    def test_kv_heads_default_to_heads(self):
        assert ModelSection(**SHAPE).num_kv_heads == 6

    @pytest.mark.parametrize(("d_model", "d_ff"), [(192, 512), (48, 128), (200, 576), (24, 64)])
    def test_feed_forward_defaults_to_eight_thirds_rounded_up(self, d_model, d_ff):
        assert ModelSection(**SHAPE | {"d_model": d_model, "num_heads": 2}).d_ff == d_ff

    @pytest.mark.parametrize("num_heads", [5, 48, 16])
    def test_heads_cut_the_width_into_even_parts(self, num_heads):
        message = problems(ModelSection, **SHAPE | {"num_heads": num_heads})["num_heads"]
        assert message.startswith(f"{num_heads} heads do not cut d_model = 48 into heads of an equal, even size; use ")

    def test_the_heads_that_are_proposed_are_accepted(self):
        message = problems(ModelSection, **SHAPE | {"num_heads": 5})["num_heads"]
        assert "use 2, 3, 4 or 6, or change d_model" in message
        assert all(ModelSection(**SHAPE | {"num_heads": heads}) for heads in (2, 3, 4, 6))

    def test_an_odd_width_is_said_to_fit_no_heads(self):
        assert problems(ModelSection, **SHAPE | {"d_model": 7}) == {
            "num_heads": "no number of heads fits d_model = 7; make d_model even"
        }

    def test_kv_heads_divide_heads(self):
        assert problems(ModelSection, **SHAPE, num_kv_heads=4) == {
            "num_kv_heads": "4 does not divide num_heads = 6; use 1, 2, 3 or 6"
        }

    def test_a_wrong_key_does_not_hide_a_broken_rule(self):
        keys = SHAPE | {"num_heads": 5, "num_layers": 0, "d_modle": 3}
        assert problems(ModelSection, **keys).keys() == {"num_heads", "num_layers", "d_modle"}


def test_a_mask_rate_is_a_probability():
    assert "noise_epsilon" in problems(MaskedDiffusionSection, name="masked_diffusion", noise_epsilon=0.0)
    assert "gather_capacity" in problems(MaskedDiffusionSection, name="masked_diffusion", gather_capacity=1.5)


class TestOptimizer:
    def test_a_stable_schedule_requires_its_decay(self):
        keys = {"name": "adamw", "max_learning_rate": 1e-3, "schedule": "warmup_stable_decay"}
        assert problems(AdamWSection, **keys)["decay_steps"].startswith('required by schedule = "warmup_stable_decay"')
        assert AdamWSection(**keys, decay_steps=10).decay_steps == 10

    def test_another_schedule_refuses_a_decay_that_it_would_ignore(self):
        found = problems(AdamWSection, name="adamw", max_learning_rate=1e-3, decay_steps=10)
        assert found["decay_steps"].startswith('not used by schedule = "cosine"; remove it')

    def test_the_learning_rate_falls(self):
        assert problems(AdamWSection, name="adamw", max_learning_rate=1e-4, min_learning_rate=1e-3) == {
            "min_learning_rate": "0.001 is above max_learning_rate = 0.0001; lower it"
        }


def test_float16_is_refused_on_a_cpu():
    found = problems(TrainingSection, max_steps=1, batch_size=1, precision="float16", device="cpu")
    assert found["precision"].startswith("float16 trains on a GPU only")


class TestData:
    def test_a_file_format_requires_files(self):
        assert problems(CorpusSection, dataset_name="text")["data_files"].startswith(
            'required by dataset_name = "text"; name your files: data_files = '
        )

    def test_the_embedded_corpus_refuses_files(self):
        found = problems(CorpusSection, dataset_name="synthetic/stories", data_files="a.txt")
        assert found["data_files"] == (
            '"synthetic/stories" reads no files; remove data_files or set dataset_name = "text"'
        )

    @pytest.mark.parametrize("data_files", ["", [], ["a", ""], {}, {"train": []}])
    def test_files_have_names(self, data_files):
        assert problems(CorpusSection, dataset_name="text", data_files=data_files)["data_files"].startswith("names no")

    @pytest.mark.parametrize("data_files", ["a", ["a", "b"], {"train": "a", "test": ["b"]}])
    def test_files_are_a_name_a_list_or_a_table(self, data_files):
        assert CorpusSection(dataset_name="json", data_files=data_files).data_files is not None

    @pytest.mark.parametrize(
        ("name", "file_format"), [("a.txt", "text"), ("b/c.jsonl.gz", "json"), ("x.parquet", "parquet")]
    )
    def test_a_file_is_no_dataset_name(self, name, file_format):
        assert (
            f'dataset_name = "{file_format}" and data_files = "{name}"'
            in problems(CorpusSection, dataset_name=name)["dataset_name"]
        )

    def test_a_misspelt_embedded_corpus_is_not_looked_for_on_the_hub(self):
        assert problems(CorpusSection, dataset_name="synthetic/story") == {
            "dataset_name": (
                'there is no embedded corpus "synthetic/story"; use "synthetic/stories" or "synthetic/hidden_markov"'
            )
        }

    def test_a_stream_has_no_slices(self):
        keys = {"pipeline_mode": "packed", "dataset_name": "some/dataset", "train_split": "train[:90%]", **TOKENIZER}
        assert problems(PackedSection, **keys) == {
            "streaming": 'a stream has no slices such as "train[:90%]"; set streaming = false'
        }
        assert PackedSection(**keys, streaming=False)

    def test_a_split_is_among_the_files(self):
        keys = {"pipeline_mode": "packed", "dataset_name": "text", "data_files": {"learn": "a"}, **TOKENIZER}
        assert problems(PackedSection, **keys) == {
            "train_split": 'data_files has no "train", only learn; add it or use one of them'
        }

    def test_megatron_requires_both_prefixes_and_no_dataset(self):
        found = problems(MegatronSection, pipeline_mode="megatron", dataset_name="x", **TOKENIZER)
        assert found.keys() == {"megatron_train_prefix", "megatron_val_prefix", "dataset_name"}

    def test_an_endless_corpus_is_cut_for_a_tokenizer(self):
        assert problems(TokenizerCorpusSection, dataset_name="synthetic/stories")["max_documents"].startswith(
            "required"
        )


class TestGeneration:
    @pytest.mark.parametrize(
        "keys", [{"steps": 0}, {"seed": 2**63}, {"block_length": 0}, {"top_p": 0.0}, {"temperature": -1.0}]
    )
    def test_numbers_are_in_range(self, keys):
        assert problems(GenerationSettings, **keys).keys() == keys.keys()

    def test_an_empty_stop_text_is_refused(self):
        assert "would stop at once" in problems(GenerationSettings, stop=["a", ""])["stop"]


@pytest.mark.parametrize("name", ["a/b", "..", "latest", "a\\b"])
def test_a_run_name_is_one_folder(name):
    assert "cannot name a folder" in problems(LoggingSection, run_name=name)["run_name"]


class TestTokenizer:
    def test_a_vocabulary_has_room_for_bytes_and_special_tokens(self):
        assert problems(TokenizerSection, vocab_size=257, output_dir="o") == {
            "vocab_size": "257 is below 258 = 256 bytes + 2 special tokens; raise it"
        }

    def test_special_tokens_are_distinct_and_end_documents(self):
        keys = {"vocab_size": 300, "output_dir": "o"}
        assert "given twice" in problems(TokenizerSection, **keys, special_tokens=["a", "a"])["special_tokens"]
        assert "<|endoftext|>" in problems(TokenizerSection, **keys, special_tokens=["a"])["special_tokens"]


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"mask_draw": "complementary", "max_mask_rate": 0.5}, "mask_draw", "masks take every rate"),
        ({"mask_draw": "exact_count", "schedule": "cosine"}, "schedule", 'no meaning for mask_draw = "exact_count"'),
        ({"min_mask_rate": 0.5, "max_mask_rate": 0.5}, "min_mask_rate", "not below max_mask_rate"),
    ],
)
def test_settings_of_masks_that_contradict_one_another_are_refused(keys, path, message):
    for section, name in ((MaskedDiffusionSection, "masked_diffusion"), (JointSection, "joint")):
        found = problems(section, name=name, **keys)
        assert list(found) == [path]
        assert message in found[path]


class TestRulesBetweenSections:
    @pytest.mark.parametrize(
        ("section", "keys", "path", "message"),
        [
            (
                "optimizer",
                {"warmup_steps": 100},
                "optimizer.warmup_steps",
                "do not end before training.max_steps",
            ),
            (
                "optimizer",
                {"schedule": "warmup_stable_decay", "warmup_steps": 60, "decay_steps": 50},
                "optimizer.decay_steps",
                "use at most 40",
            ),
            ("sampling", {"total_length": 65}, "sampling.total_length", "65 is above model.context_length = 64"),
            (
                "sampling",
                {"generation_mode": "diffusion"},
                "sampling.generation_mode",
                '"auto" or "autoregressive"',
            ),
            ("sampling", {"generation_mode": "verified"}, "sampling.generation_mode", 'use "auto" or "autoregressive"'),
            (
                "objective",
                {"name": "block_diffusion", "block_length": 65},
                "objective.block_length",
                "65 is above model.context_length = 64",
            ),
            (
                "objective",
                {"name": "block_diffusion", "warmup_block_lengths": [1, 4], "warmup_block_steps": 50},
                "objective.warmup_block_lengths",
                "2 x 50 steps of warmup never reach objective.block_length",
            ),
            ("data", {"pipeline_mode": "rows", "pad_token_id": 320}, "data.pad_token_id", "outside the vocabulary"),
            ("data", {"dataset_name": "text", "data_files": "a"}, "data.val_split", 'there is no "validation"'),
        ],
    )
    def test_a_broken_rule_is_reported_at_its_key(self, train_table, section, keys, path, message):
        train_table[section] = train_table.get(section, {}) | keys
        found = problems(TrainConfig, **train_table)
        assert list(found) == [path]
        assert message in found[path]

    def test_nccl_is_refused_on_cpus(self, train_table):
        train_table["training"]["device"] = "cpu"
        assert (
            "nccl works between GPUs only"
            in problems(TrainConfig, **train_table, ddp={"backend": "nccl"})["ddp.backend"]
        )

    def test_without_validation_its_split_may_be_missing(self, train_table):
        train_table["training"]["skip_validation"] = True
        train_table["data"] |= {"dataset_name": "text", "data_files": "a"}
        assert TrainConfig(**train_table)

    def test_they_are_reported_beside_wrong_keys_of_the_same_sections(self, train_table):
        train_table["model"]["num_layers"] = "two"
        train_table["training"]["batch_sise"] = 3
        train_table["optimizer"]["warmup_steps"] = 500
        train_table["sampling"] = {"total_length": 500, "top_k": -1}
        assert problems(TrainConfig, **train_table).keys() == {
            "model.num_layers",
            "training.batch_sise",
            "sampling.top_k",
            "optimizer.warmup_steps",
            "sampling.total_length",
        }

    def test_they_hold_for_sections_built_in_python(self, train_table):
        train_table["model"] = ModelSection(**train_table["model"])
        train_table["optimizer"] = AdamWSection(**train_table["optimizer"], warmup_steps=500)
        train_table["training"]["seed"] = -1
        assert problems(TrainConfig, **train_table).keys() == {"training.seed", "optimizer.warmup_steps"}


class TestBenchInfer:
    def test_one_model_is_measured(self):
        assert BenchInferConfig(**RANDOM_MODEL)
        assert BenchInferConfig(checkpoint={"path": "x"})
        assert "nothing to measure" in problems(BenchInferConfig)["checkpoint"]
        assert "brings its own" in problems(BenchInferConfig, checkpoint={}, **RANDOM_MODEL)["checkpoint"]

    def test_something_is_generated_inside_the_context(self):
        short = problems(BenchInferConfig, **RANDOM_MODEL, inference={"total_length": 32})
        assert short["inference.total_length"].startswith("32 leaves nothing to generate")
        long = problems(BenchInferConfig, **RANDOM_MODEL, inference={"total_length": 65})
        assert long["inference.total_length"].startswith("65 is above model.context_length = 64")


class TestSharing:
    def test_fsdp_refuses_float16(self):
        keys = {
            "model": SHAPE,
            "objective": {"name": "autoregressive"},
            "optimizer": {"name": "adamw", "max_learning_rate": 1e-3},
            "training": {"max_steps": 1, "batch_size": 1, "precision": "float16"},
            "data": {"pipeline_mode": "packed", "dataset_name": "synthetic/stories", **TOKENIZER},
            "ddp": {"strategy": "fsdp"},
        }
        found = problems(TrainConfig, **keys)
        assert list(found) == ["ddp.strategy"]
        assert 'use training.precision = "bfloat16"' in found["ddp.strategy"]
