"""Write an autoregressive model as one GGUF file, for llama.cpp and what is built on it.

Llama's rotary features are interleaved there, so its query and key rows are put in another order; Qwen3's stay
half-split. The file is read back and its logits are computed before it appears. Needs the `gguf` package.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from transformerlm.checkpoint import LoadedModel
from transformerlm.interop.appearing import ForeignModelError, appearing
from transformerlm.interop.huggingface import (
    ExportReport,
    cast_state,
    count_parameters,
    describe_model,
    measure_difference,
    resolve_mode,
)
from transformerlm.interop.llama import Weights, to_llama
from transformerlm.models.shape import ModelShape
from transformerlm.tokenizer import Vocabulary
from transformerlm.tokenizer.vocabulary import to_printable

# llama.cpp's names for the ways to cut text that are ours, character for character where it was tried.
_PRETOKENIZERS = {"gpt2": "gpt-2", "gpt2_digits": "smollm"}

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def export_gguf(loaded: LoadedModel, path: Path | str, *, mode: str = "auto", dtype: str = "float32") -> ExportReport:
    """Write a model and its tokenizer into a new file; parameters as for `export_huggingface`.

    Raises ForeignModelError, in a sentence, for what llama.cpp does not compute, or if `gguf` is not installed.
    """
    path, gguf = Path(path), _import_gguf()
    if path.exists():
        raise ForeignModelError(f"{path} exists already; choose a new file")
    if resolve_mode(loaded, mode) == "diffusion":
        raise ForeignModelError("a diffusion model has no form in GGUF that was tried; export it as huggingface")
    vocabulary, shape = loaded.tokenizer.vocabulary, loaded.model.shape
    if vocabulary.pattern not in _PRETOKENIZERS:
        raise ForeignModelError(
            f"the tokenizer's pattern {vocabulary.pattern!r} has no name known in llama.cpp; those of "
            f"{' and '.join(_PRETOKENIZERS)} have"
        )
    config = describe_model(loaded, is_diffusion=False)
    weights = to_llama(cast_state(loaded.model, dtype), shape)
    with appearing(path) as unfinished:
        writer = gguf.GGUFWriter(unfinished, config["model_type"])
        _describe(gguf, writer, config, dtype)
        _add_tokenizer(gguf, writer, vocabulary, loaded.tokenizer.end_of_text_id)
        for name, weight in weights.items():
            _add_weight(gguf, writer, to_gguf_name(name), _reorder(name, weight, shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        read = read_weights(unfinished, shape)
        difference = measure_difference(loaded.model, config, read, dtype, is_causal=True)
    return ExportReport(path, config["architectures"][0], count_parameters(loaded.model), difference)


def to_gguf_name(name: str) -> str:
    """Translate a name of Llama's family: "model.layers.0.self_attn.q_proj.weight" is "blk.0.attn_q.weight"."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return f"{_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def read_weights(path: Path, shape: ModelShape) -> Weights:
    """Read the weights of a file written here, under the names of Llama's family and in their order of rows."""
    gguf = _import_gguf()
    names = {other: name for name, other in _NAMES.items()}
    weights: Weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        parts = tensor.name.removesuffix(".weight").split(".")
        layer = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        name = f"{layer}{names[parts[-1]]}.weight"
        weights[name] = _restore(name, values, shape)
    return weights


def _import_gguf() -> ModuleType:
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise ForeignModelError(
            f"a GGUF file needs the gguf package ({error}); install it: uv pip install gguf"
        ) from None


def _describe(gguf: ModuleType, writer, config: Mapping, dtype: str) -> None:
    file_type = gguf.LlamaFileType.ALL_F32 if dtype == "float32" else gguf.LlamaFileType.MOSTLY_BF16
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(gguf: ModuleType, writer, vocabulary: Vocabulary, end_id: int) -> None:
    special_of_id = {id: special for special, id in vocabulary.special_tokens.items()}
    kinds = [gguf.TokenType.CONTROL if id in special_of_id else gguf.TokenType.NORMAL for id in range(len(vocabulary))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRETOKENIZERS[vocabulary.pattern])
    writer.add_token_list([special_of_id.get(id) or to_printable(token) for id, token in enumerate(vocabulary.tokens)])
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{to_printable(left)} {to_printable(right)}" for left, right in vocabulary.merges])
    writer.add_bos_token_id(end_id)
    writer.add_eos_token_id(end_id)
    writer.add_pad_token_id(end_id)
    writer.add_add_bos_token(True)  # every text begins with it, as in training


def _add_weight(gguf: ModuleType, writer, name: str, weight: Tensor) -> None:
    values = weight.float().numpy()
    if weight.dtype == torch.bfloat16 and weight.ndim > 1:  # norms stay float32, as llama.cpp wants them
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values)


def _heads_to_reorder(name: str, shape: ModelShape) -> int:
    """Return the number of heads whose rows have another order there; 0 for none."""
    if shape.qk_norm or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return 0
    return shape.num_heads if name.endswith("q_proj.weight") else shape.num_kv_heads


def _reorder(name: str, weight: Tensor, shape: ModelShape) -> Tensor:
    """Interleave the two halves of each head's rows: 0, n/2, 1, n/2 + 1, ..."""
    heads = _heads_to_reorder(name, shape)
    if not heads:
        return weight
    return weight.view(heads, 2, shape.head_dim // 2, -1).transpose(1, 2).reshape(weight.shape)


def _restore(name: str, weight: Tensor, shape: ModelShape) -> Tensor:
    heads = _heads_to_reorder(name, shape)
    if not heads:
        return weight
    return weight.view(heads, shape.head_dim // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
