"""GGUF: what the `gguf` package reads back from our files."""

import sys

import pytest
import torch

from tests.interop.models import make_loaded
from transformerlm.checkpoint import LoadedModel
from transformerlm.interop import gguf_file
from transformerlm.interop.appearing import ForeignModelError
from transformerlm.interop.gguf_file import export_gguf
from transformerlm.interop.llama import to_llama
from transformerlm.tokenizer import Tokenizer, Vocabulary


def read_field(reader, key):
    return reader.get_field(key).contents()


@pytest.mark.parametrize("kind", ["llama", "grouped", "qwen3"])
def test_gguf_reads_back_the_weights_and_the_shape(tmp_path, kind):
    gguf = pytest.importorskip("gguf", reason="writes the format")
    loaded = make_loaded(kind)
    assert export_gguf(loaded, tmp_path / "model.gguf").max_difference < 1e-5
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    architecture = "qwen3" if kind == "qwen3" else "llama"
    assert read_field(reader, "general.architecture") == architecture
    assert read_field(reader, f"{architecture}.attention.head_count_kv") == loaded.model.shape.num_kv_heads
    assert read_field(reader, f"{architecture}.rope.freq_base") == loaded.model.shape.rope_theta
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights = to_llama(loaded.model.state_dict(), loaded.model.shape)
    assert tensors.keys() == {gguf_file.to_gguf_name(name) for name in weights}
    same = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.1.ffn_up.weight": "model.layers.1.mlp.up_proj.weight",
    }
    for there, here in same.items():
        assert torch.equal(torch.from_numpy(tensors[there].data.copy()), weights[here])
    queries = torch.from_numpy(tensors["blk.0.attn_q.weight"].data.copy())
    ours = weights["model.layers.0.self_attn.q_proj.weight"]
    # Llama's first head there: features 0, 8, 1, 9, ... of its 16; Qwen3's as they are.
    order = [0, 1, 2, 3] if kind == "qwen3" else [0, 8, 1, 9]
    assert torch.equal(queries[:4], ours[order])


def test_the_tokenizer_is_in_the_file(tmp_path):
    gguf = pytest.importorskip("gguf", reason="writes the format")
    loaded = make_loaded()
    export_gguf(loaded, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    tokens = read_field(reader, "tokenizer.ggml.tokens")
    assert len(tokens) == 290
    assert tokens[loaded.tokenizer.end_of_text_id] == "<|endoftext|>"
    assert len(read_field(reader, "tokenizer.ggml.merges")) == 32
    kinds = read_field(reader, "tokenizer.ggml.token_type")
    assert [id for id, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL] == [288, 289]
    assert read_field(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert read_field(reader, "tokenizer.ggml.bos_token_id") == loaded.tokenizer.end_of_text_id
    assert read_field(reader, "tokenizer.ggml.add_bos_token") is True


def test_bfloat16_halves_the_matrices_and_keeps_the_norms(tmp_path):
    gguf = pytest.importorskip("gguf", reason="writes the format")
    assert export_gguf(make_loaded("qwen3"), tmp_path / "model.gguf", dtype="bfloat16").max_difference < 1e-5
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["blk.0.ffn_up.weight"] == "BF16"
    assert kinds["output_norm.weight"] == kinds["blk.0.attn_q_norm.weight"] == "F32"


def test_a_wrong_order_of_rows_never_appears(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="writes the format")
    monkeypatch.setattr(gguf_file, "_reorder", lambda name, weight, shape: weight)
    with pytest.raises(ForeignModelError, match="the written logits differ"):
        export_gguf(make_loaded("llama"), tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_form_there_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="writes the format")
    with pytest.raises(ForeignModelError, match="a diffusion model has no form in GGUF"):
        export_gguf(make_loaded("llama", "masked_diffusion"), tmp_path / "model.gguf")
    loaded = make_loaded()
    old = loaded.tokenizer.vocabulary
    other = Tokenizer(Vocabulary(old.tokens, old.merges, old.special_tokens, "cl100k"))
    with pytest.raises(ForeignModelError, match=r"pattern 'cl100k' has no name known in llama\.cpp"):
        export_gguf(LoadedModel(loaded.model, other, "autoregressive", None), tmp_path / "model.gguf")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ForeignModelError, match="exists already"):
        export_gguf(loaded, tmp_path / "model.gguf")


def test_without_the_package_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ForeignModelError, match=r"needs the gguf package .*uv pip install gguf"):
        export_gguf(make_loaded(), tmp_path / "model.gguf")
