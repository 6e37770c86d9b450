"""Llama's forward pass from a folder's own config and weights: a second opinion on what was exported.

Written after transformers' modelling code and not after ours, layer by layer, without a cache, in float64. A wrong
layout of the rotary features, which every reader loads without a word, shows here.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def plain_logits(config: Mapping[str, Any], weights: Mapping[str, Tensor], tokens: Tensor, is_causal: bool) -> Tensor:
    """Compute the logits of a Llama or Qwen3 folder.

    weights: by their names in model.safetensors.  tokens: [batch, seq] int64.
    Returns [batch, seq, vocab_size] float64.
    """
    get = _Weights(weights, config["rms_norm_eps"])
    cos, sin = _rotary_tables(tokens.shape[1], config["head_dim"], config["rope_theta"])
    hidden = get["model.embed_tokens"][tokens]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        hidden = hidden + _attention(
            get, name + "self_attn.", get.norm(name + "input_layernorm", hidden), (cos, sin), config, is_causal
        )
        x = get.norm(name + "post_attention_layernorm", hidden)
        gated = F.silu(x @ get[name + "mlp.gate_proj"].T) * (x @ get[name + "mlp.up_proj"].T)
        hidden = hidden + gated @ get[name + "mlp.down_proj"].T
    if config.get("shift_logits"):  # of diffusion: a token is predicted at the position before it, the first at its own
        hidden = torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1)
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return get.norm("model.norm", hidden) @ get[head].T


class _Weights:
    """Look up weights in float64, one at a time."""

    def __init__(self, weights: Mapping[str, Tensor], eps: float) -> None:
        self.weights, self.eps = weights, eps

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[f"{name}.weight"].double()

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Divide by the root of the mean square of the last dimension."""
        return self[name] * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def _attention(
    get: _Weights, name: str, x: Tensor, tables: tuple[Tensor, Tensor], config: Mapping[str, Any], is_causal: bool
) -> Tensor:
    batch, seq, _ = x.shape
    head_dim, heads, kv_heads = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    queries, keys, values = (
        (x @ get[f"{name}{part}_proj"].T).view(batch, seq, -1, head_dim).transpose(1, 2) for part in "qkv"
    )
    if f"{name}q_norm.weight" in get.weights:
        queries, keys = get.norm(f"{name}q_norm", queries), get.norm(f"{name}k_norm", keys)
    queries, keys = _rotate(queries, *tables), _rotate(keys, *tables)
    keys, values = (each.repeat_interleave(heads // kv_heads, dim=1) for each in (keys, values))
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(head_dim)
    if is_causal:
        scores = scores.masked_fill(torch.ones(seq, seq, dtype=torch.bool).triu(1), -math.inf)
    mixed = scores.softmax(-1) @ values
    return mixed.transpose(1, 2).reshape(batch, seq, -1) @ get[f"{name}o_proj"].T


def _rotary_tables(seq: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [seq, head_dim] of position * theta^(-2 i / head_dim)."""
    inverse_frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2).double() / head_dim)
    angles = torch.outer(torch.arange(seq).double(), inverse_frequency).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
