"""Our models under the names of Llama's family: the same computation, so the same weights.

    transformerlm                                     Hugging Face
    embedding.weight (padded rows cut off)            model.embed_tokens.weight
    blocks.N.attention_norm.weight                    model.layers.N.input_layernorm.weight
    blocks.N.attention.qkv.weight                     model.layers.N.self_attn.{q,k,v}_proj.weight
    blocks.N.attention.{query,key}_norm.weight        model.layers.N.self_attn.{q,k}_norm.weight   (Qwen3)
    blocks.N.attention.out.weight                     model.layers.N.self_attn.o_proj.weight
    blocks.N.feed_forward_norm.weight                 model.layers.N.post_attention_layernorm.weight
    blocks.N.feed_forward.gate_up.weight              model.layers.N.mlp.{gate,up}_proj.weight
    blocks.N.feed_forward.down.weight                 model.layers.N.mlp.down_proj.weight
    norm.weight                                       model.norm.weight
    head.weight (padded rows cut off)                 lm_head.weight, left out if tied

Rotary positions are half-split on both sides. QK-norm is Qwen3's: RMSNorm over the features of each head, one weight
for all heads, before the rotation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from transformerlm.interop.appearing import ForeignModelError
from transformerlm.models.shape import ModelShape

Weights = dict[str, Tensor]
Config = Mapping[str, Any]


_LAYER_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
_QK_NORM_NAMES = {
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
}
_QKV = tuple(f"self_attn.{name}_proj.weight" for name in "qkv")
_GATE_UP = ("mlp.gate_proj.weight", "mlp.up_proj.weight")

HAS_QK_NORM = {"LlamaForCausalLM": False, "MistralForCausalLM": False, "Qwen3ForCausalLM": True}
"""The architectures that are read; of these, Llama and Qwen3 are written."""

# What a config.json may say only in this way, with what it means to leave it out.
_FIXED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}


def describe_shape(shape: ModelShape) -> dict[str, object]:
    """Return the entries of a config.json that a shape decides."""
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,  # for readers before transformers 5
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }


def read_shape(config: Config, has_qk_norm: bool) -> ModelShape:
    """Return the shape that a config.json describes.

    Raises ForeignModelError, naming the entry, if the model computes something that is not computed here.
    """
    for key, plain in _FIXED.items():
        if config.get(key, plain) != plain:
            raise ForeignModelError(f"{key} = {config[key]!r}, and models here have {plain!r} only")
    _check_window(config)
    try:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim") or (128 if has_qk_norm else width // heads)  # 128 is Qwen3's default
        if head_dim * heads != width:
            raise ForeignModelError(
                f"head_dim = {head_dim} times {heads} heads is not hidden_size = {width}, as models here need it"
            )
        return ModelShape(
            vocab_size=config["vocab_size"],
            context_length=config["max_position_embeddings"],
            d_model=width,
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            d_ff=config["intermediate_size"],
            rope_theta=_read_rope_theta(config),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            qk_norm=has_qk_norm,
            tie_embeddings=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ForeignModelError(f"{error.args[0]} is missing") from None
    except ForeignModelError:
        raise
    except (ValueError, TypeError) as error:
        raise ForeignModelError(f"its config.json describes no model: {error}") from None


def _check_window(config: Config) -> None:
    """Refuse attention that does not reach back to the beginning."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None and window < config.get("max_position_embeddings", window):
        raise ForeignModelError(f"sliding_window = {window}, and attention here always sees everything before it")


def _read_rope_theta(config: Config) -> float:
    """Return the base of the rotary frequencies; scaled ones are refused."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ForeignModelError(f"{key} asks for RoPE scaling of type {kind!r}, which is not computed here")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ForeignModelError(f"{key} rotates a part of each head only, and here all of it is rotated")
    return float((config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10_000.0)))


def to_llama(state: Mapping[str, Tensor], shape: ModelShape) -> Weights:
    """Rename and cut our weights into those of Llama's family; no copies where none are needed."""
    weights = {"model.embed_tokens.weight": state["embedding.weight"][: shape.vocab_size]}
    for layer in range(shape.num_layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for name, other in _renamed(shape).items():
            weights[theirs + other] = state[ours + name]
        qkv = state[ours + "attention.qkv.weight"].split(_qkv_rows(shape))
        gate_up = state[ours + "feed_forward.gate_up.weight"].chunk(2)
        for other, part in zip((*_QKV, *_GATE_UP), (*qkv, *gate_up), strict=True):
            weights[theirs + other] = part
    weights["model.norm.weight"] = state["norm.weight"]
    if not shape.tie_embeddings:
        weights["lm_head.weight"] = state["head.weight"][: shape.vocab_size]
    return {name: weight.contiguous() for name, weight in weights.items()}


def from_llama(weights: Mapping[str, Tensor], shape: ModelShape) -> Weights:
    """Do the reverse, in float32; rows that only pad the vocabulary are zero.

    Raises ForeignModelError, naming the weight, if one is missing, left over or of another size.
    """
    rest = {name: weight.float() for name, weight in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    state = {"embedding.weight": _pad(_take(rest, "model.embed_tokens.weight"), shape)}
    for layer in range(shape.num_layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for name, other in _renamed(shape).items():
            state[ours + name] = _take(rest, theirs + other)
        state[ours + "attention.qkv.weight"] = _stack([_take(rest, theirs + other) for other in _QKV])
        state[ours + "feed_forward.gate_up.weight"] = _stack([_take(rest, theirs + other) for other in _GATE_UP])
    state["norm.weight"] = _take(rest, "model.norm.weight")
    if shape.tie_embeddings:
        rest.pop("lm_head.weight", None)
        state["head.weight"] = state["embedding.weight"]
    else:
        state["head.weight"] = _pad(_take(rest, "lm_head.weight"), shape)
    if rest:
        raise ForeignModelError(f"the weight {min(rest)} has no place in this model")
    return state


def _renamed(shape: ModelShape) -> Mapping[str, str]:
    return {**_LAYER_NAMES, **(_QK_NORM_NAMES if shape.qk_norm else {})}


def _qkv_rows(shape: ModelShape) -> list[int]:
    return [heads * shape.head_dim for heads in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)]


def _take(weights: Weights, name: str) -> Tensor:
    if name not in weights:
        raise ForeignModelError(f"the weight {name} is missing")
    return weights.pop(name)


def _stack(parts: list[Tensor]) -> Tensor:
    if len({part.shape[1:] for part in parts}) > 1:
        raise ForeignModelError(f"projections that see the same have sizes {[tuple(part.shape) for part in parts]}")
    return torch.cat(parts)


def _pad(weight: Tensor, shape: ModelShape) -> Tensor:
    """Cut rows to the vocabulary, and add zero rows up to its padded size."""
    if len(weight) < shape.vocab_size:
        raise ForeignModelError(f"there are {len(weight)} embeddings for {shape.vocab_size} tokens")
    padding = weight.new_zeros(shape.padded_vocab_size - shape.vocab_size, weight.shape[1])
    return torch.cat((weight[: shape.vocab_size], padding))
