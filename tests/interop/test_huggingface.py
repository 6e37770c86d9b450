"""Folders for transformers: the check before they appear, what stands in them, and the way back."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.interop.models import SHAPES, make_loaded
from transformerlm.checkpoint import LoadedModel
from transformerlm.interop import huggingface
from transformerlm.interop.appearing import ForeignModelError
from transformerlm.interop.huggingface import export_huggingface
from transformerlm.interop.huggingface_import import import_huggingface
from transformerlm.interop.llama import to_llama
from transformerlm.interop.plain_llama import plain_logits
from transformerlm.tokenizer import Tokenizer, Vocabulary

FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def assert_same_model(one: LoadedModel, other: LoadedModel) -> None:
    assert one.model.shape == other.model.shape
    assert one.tokenizer == other.tokenizer
    assert one.objective == other.objective
    theirs = other.model.state_dict()
    assert theirs.keys() == one.model.state_dict().keys()
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, theirs[name]), name


@pytest.mark.parametrize(
    ("kind", "objective"),
    [(kind, "masked_diffusion") for kind in SHAPES]
    + [(kind, "autoregressive") for kind in SHAPES if kind != "shifted"],
)
def test_import_of_export_is_the_same_model_bit_by_bit(tmp_path, kind, objective):
    loaded = make_loaded(kind, objective)
    report = export_huggingface(loaded, tmp_path / "there", card="# card\n")
    assert report.max_difference < 1e-5
    assert_same_model(import_huggingface(tmp_path / "there"), loaded)
    names = sorted(path.name for path in (tmp_path / "there").iterdir())
    code = ["configuration_transformerlm.py", "modeling_transformerlm.py"] if objective == "masked_diffusion" else []
    assert names == sorted([*FILES, *code, "README.md"])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_architecture_follows_qk_norm_and_objective(tmp_path):
    for kind, objective, architecture in [
        ("llama", "autoregressive", "LlamaForCausalLM"),
        ("qwen3", "autoregressive", "Qwen3ForCausalLM"),
        ("llama", "masked_diffusion", "MaskedDiffusionLM"),
    ]:
        folder = tmp_path / f"{kind}_{objective}"
        assert export_huggingface(make_loaded(kind, objective), folder).architecture == architecture
        assert json.loads((folder / "config.json").read_text())["architectures"] == [architecture]


def test_the_padding_of_the_vocabulary_stays_behind(tmp_path):
    loaded = make_loaded("llama")
    assert loaded.model.shape.padded_vocab_size > loaded.model.shape.vocab_size
    report = export_huggingface(loaded, tmp_path / "there")
    weights = load_file(tmp_path / "there" / "model.safetensors")
    assert len(weights["model.embed_tokens.weight"]) == len(weights["lm_head.weight"]) == 290
    assert report.parameters == sum(weight.numel() for weight in weights.values())


def test_tied_embeddings_are_written_once(tmp_path):
    report = export_huggingface(make_loaded("qwen3"), tmp_path / "there")
    weights = load_file(tmp_path / "there" / "model.safetensors")
    assert "lm_head.weight" not in weights
    assert report.parameters == sum(weight.numel() for weight in weights.values())


def test_bfloat16_weights_are_the_rounded_ones(tmp_path):
    loaded = make_loaded("grouped")
    report = export_huggingface(loaded, tmp_path / "there", dtype="bfloat16")
    assert report.max_difference < 1e-5  # of the rounded weights: no other difference is left
    weights = load_file(tmp_path / "there" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    back = import_huggingface(tmp_path / "there").model.state_dict()
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(back[name], weight.bfloat16().float()), name


def swap_rotary_layout(weights, name, head_dim=16):
    rows = weights[name]
    weights[name] = rows.view(-1, head_dim // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape).contiguous()


MISTAKES = {
    "rotary features interleaved": lambda w: [
        swap_rotary_layout(w, f"model.layers.1.self_attn.{part}_proj.weight") for part in "qk"
    ],
    "keys and values exchanged": lambda w: w.update(
        {
            "model.layers.0.self_attn.k_proj.weight": w["model.layers.0.self_attn.v_proj.weight"],
            "model.layers.0.self_attn.v_proj.weight": w["model.layers.0.self_attn.k_proj.weight"],
        }
    ),
    "gate and up exchanged": lambda w: w.update(
        {
            "model.layers.0.mlp.gate_proj.weight": w["model.layers.0.mlp.up_proj.weight"],
            "model.layers.0.mlp.up_proj.weight": w["model.layers.0.mlp.gate_proj.weight"],
        }
    ),
    "a norm forgotten": lambda w: w["model.norm.weight"].fill_(1.0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("weight_scale", [8.0, 1.0], ids=["large weights", "weights of a beginning"])
def test_a_folder_that_computes_something_else_never_appears(tmp_path, monkeypatch, mistake, weight_scale):
    def wrongly(state, shape):
        weights = {name: weight.clone() for name, weight in to_llama(state, shape).items()}
        MISTAKES[mistake](weights)
        return weights

    monkeypatch.setattr(huggingface, "to_llama", wrongly)
    with pytest.raises(ForeignModelError, match="the written logits differ from the model's by up to"):
        export_huggingface(make_loaded("llama", weight_scale=weight_scale), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"rope_theta": 9000.0}, {"rms_norm_eps": 1e-4}])
def test_the_check_sees_a_wrong_entry_of_the_config(change):
    loaded = make_loaded("qwen3")
    config = huggingface.describe_model(loaded, is_diffusion=False) | change
    weights = to_llama(loaded.model.state_dict(), loaded.model.shape)
    with pytest.raises(ForeignModelError, match="differ"):
        huggingface.measure_difference(loaded.model, config, weights, "float32", is_causal=True)


def test_the_second_opinion_is_causal_or_not():
    loaded = make_loaded("llama")
    weights = to_llama(loaded.model.state_dict(), loaded.model.shape)
    config = huggingface.describe_model(loaded, is_diffusion=False)
    tokens = torch.arange(20)[None]
    causal = plain_logits(config, weights, tokens, True)
    assert torch.allclose(causal[:, :10], plain_logits(config, weights, tokens[:, :10], True), atol=1e-12)
    assert not torch.allclose(causal, plain_logits(config, weights, tokens, False))


def test_a_taken_name_is_refused_and_left_alone(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").touch()
    with pytest.raises(ForeignModelError, match="holds something already"):
        export_huggingface(make_loaded(), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["thesis.tex"]
    (tmp_path / "there" / "thesis.tex").unlink()
    export_huggingface(make_loaded(), tmp_path / "there")


def test_weights_that_learned_other_things_are_refused(tmp_path):
    loaded = make_loaded()
    with pytest.raises(ValueError, match="generation_mode = 'diffusion' needs weights trained for it"):
        export_huggingface(loaded, tmp_path / "there", mode="diffusion")
    with pytest.raises(ForeignModelError, match="dtype = 'float16'"):
        export_huggingface(loaded, tmp_path / "there", dtype="float16")
    with pytest.raises(ValueError, match="cannot generate from a checkpoint of objective 'regression'"):
        export_huggingface(LoadedModel(loaded.model, loaded.tokenizer, "regression", None), tmp_path / "there")
    vocabulary = Vocabulary.from_merges([], ["<|endoftext|>"])
    with pytest.raises(ForeignModelError, match="the model has 290 tokens and its tokenizer 257"):
        export_huggingface(LoadedModel(loaded.model, Tokenizer(vocabulary), "autoregressive", None), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_block_diffusion_has_no_form_there(tmp_path):
    with pytest.raises(ForeignModelError, match="denoises block by block against a cache"):
        export_huggingface(make_loaded("llama", "block_diffusion"), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_both_objectives_leaves_as_either(tmp_path):
    loaded = make_loaded("qwen3", "joint")
    for mode, architecture in [("auto", "MaskedDiffusionLM"), ("autoregressive", "Qwen3ForCausalLM")]:
        assert export_huggingface(loaded, tmp_path / mode, mode=mode).architecture == architecture
    generation = json.loads((tmp_path / "autoregressive" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [loaded.tokenizer.mask_id]
    with pytest.raises(ForeignModelError, match="use autoregressive or diffusion"):
        export_huggingface(loaded, tmp_path / "x", mode="verified")
