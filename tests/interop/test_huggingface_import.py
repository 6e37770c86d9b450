"""Folders of Llama's family that come in: what is accepted, what is changed, what is refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.interop.models import make_loaded
from transformerlm.interop.adoption import Adoption
from transformerlm.interop.appearing import ForeignModelError
from transformerlm.interop.huggingface import export_huggingface
from transformerlm.interop.huggingface_import import import_huggingface
from transformerlm.interop.tokenizer_json import ForeignTokenizerError


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a Llama of 290 tokens."""
    export_huggingface(make_loaded("grouped"), tmp_path / "llama")
    return tmp_path / "llama"


def change_json(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


REFUSED = {
    "the architecture Qwen2ForCausalLM computes something else": {"architectures": ["Qwen2ForCausalLM"]},
    "rope_scaling asks for RoPE scaling of type 'linear'": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_parameters asks for RoPE scaling of type 'llama3'": {"rope_parameters": {"rope_type": "llama3"}},
    "rotates a part of each head only": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "hidden_act = 'gelu'": {"hidden_act": "gelu"},
    "attention_bias = True": {"attention_bias": True},
    "mlp_bias = True": {"mlp_bias": True},
    "sliding_window = 32": {"sliding_window": 32},
    "head_dim = 32 times 4 heads is not hidden_size = 64": {"head_dim": 32},
    "quantization_config": {"quantization_config": {"bits": 4}},
    r"feed_forward.gate_up.weight has size \(192, 64\), and config.json says \(256, 64\)": {"intermediate_size": 128},
    "num_kv_heads = 3 must divide": {"num_key_value_heads": 3},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_computed_otherwise_here_is_refused(folder, message):
    change_json(folder / "config.json", **REFUSED[message])
    with pytest.raises(ForeignModelError, match=message) as refusal:
        import_huggingface(folder)
    assert str(refusal.value).startswith(str(folder))
    assert "\n" not in str(refusal.value)


BROKEN = {
    "the weight model.norm.weight is missing": lambda w: w.pop("model.norm.weight"),
    "the weight model.layers.0.self_attn.q_proj.bias has no place": lambda w: w.update(
        {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}
    ),
    "projections that see the same have sizes": lambda w: w.update(
        {"model.layers.0.self_attn.v_proj.weight": torch.zeros(16, 63)}
    ),
    "quantized models are not read": lambda w: w.update({"model.norm.weight": torch.zeros(64, dtype=torch.int8)}),
    "the tokenizer has 290 tokens, more than": lambda w: w.update(
        {"model.embed_tokens.weight": w["model.embed_tokens.weight"][:280].clone()}
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_weights_that_do_not_fit_are_named(folder, message):
    change_weights(folder, BROKEN[message])
    with pytest.raises(ForeignModelError, match=message):
        import_huggingface(folder)


def test_a_truncated_file_is_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ForeignModelError, match="unreadable or truncated"):
        import_huggingface(folder)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ForeignModelError, match="weights are read as safetensors only"):
        import_huggingface(folder)


def test_weights_in_several_files_are_gathered(folder):
    whole = import_huggingface(folder)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[:7], names[7:])):
        save_file({name: weights[name] for name in part}, folder / f"part_{number}.safetensors")
        index |= dict.fromkeys(part, f"part_{number}.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    parts = import_huggingface(folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True))


def test_entries_left_out_have_their_defaults(folder):
    config = json.loads((folder / "config.json").read_text())
    for key in ("head_dim", "rope_parameters", "rope_theta", "attention_bias", "mlp_bias", "hidden_act"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": None, "rope_scaling": None}))
    shape = import_huggingface(folder).model.shape
    assert (shape.head_dim, shape.rope_theta, shape.num_kv_heads) == (16, 10_000.0, 1)


def test_embeddings_no_token_has_are_cut(folder):
    whole = import_huggingface(folder)
    change_json(folder / "config.json", vocab_size=300)
    change_weights(
        folder,
        lambda w: w.update(
            {name: torch.cat((w[name], torch.ones(10, 64))) for name in ("model.embed_tokens.weight", "lm_head.weight")}
        ),
    )
    cut = import_huggingface(folder)
    assert cut.model.shape.vocab_size == 290
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), cut.model.parameters(), strict=True))


def forget_mask_token(folder):
    """Turn the tokenizer into one without <|mask|>, which is its last token."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = content["added_tokens"][:1]
    del content["model"]["vocab"]["<|mask|>"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("is_padded", [True, False])
def test_a_mask_token_is_added_with_a_mean_embedding(folder, is_padded):
    forget_mask_token(folder)
    plain = import_huggingface(folder)
    assert plain.tokenizer.mask_id is None
    assert plain.model.shape.vocab_size == 289
    if not is_padded:
        change_weights(
            folder,
            lambda w: w.update({n: w[n][:289].clone() for n in ("model.embed_tokens.weight", "lm_head.weight")}),
        )
    loaded = import_huggingface(folder, Adoption(adds_mask_token=True))
    assert loaded.tokenizer.mask_id == 289
    assert loaded.model.shape.vocab_size == 290
    embedding = loaded.model.embedding.weight
    assert torch.allclose(embedding[289], embedding[:289].mean(0))
    tokens = torch.arange(40)[None]
    assert torch.equal(loaded.model(tokens, is_causal=True)[..., :289], plain.model(tokens, is_causal=True))


def test_a_mask_token_that_is_there_stays(folder):
    loaded = import_huggingface(folder, Adoption(adds_mask_token=True))
    before = import_huggingface(folder)
    assert loaded.tokenizer == before.tokenizer
    assert torch.equal(loaded.model.embedding.weight, before.model.embedding.weight)


def test_another_end_of_text_token_takes_our_name_and_keeps_its_id(folder):
    expected = import_huggingface(folder)
    text = (folder / "tokenizer.json").read_text().replace("<|endoftext|>", "</s>")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(
        ForeignModelError, match=r"no special token '<\|endoftext\|>'.*importing\.end_of_text to .*</s>"
    ):
        import_huggingface(folder)
    assert import_huggingface(folder, Adoption(end_of_text="</s>")).tokenizer == expected.tokenizer


def test_a_foreign_tokenizer_is_refused_with_its_file(folder):
    change_json(folder / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(ForeignTokenizerError, match=r"tokenizer\.json: its normalizer \(NFC\)"):
        import_huggingface(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ForeignModelError, match=r"neither tokenizer\.json nor GPT-2's"):
        import_huggingface(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ForeignModelError, match=r"config\.json: not the config\.json of a model"):
        import_huggingface(tmp_path)
