"""Our weights in a transformers model, so that both generate with the same network (benchmarks only)."""

import torch
from torch import Tensor

from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM


def to_transformers(model: TransformerLM):
    """Build the transformers model with our weights and check that it computes our logits.

    With QK-norm that is Qwen3, without it Llama.  Raises ImportError without transformers, AssertionError if the logits
    differ by more than 1e-4.
    """
    from transformers import LlamaForCausalLM, Qwen3ForCausalLM

    shape = model.shape
    model_class = Qwen3ForCausalLM if shape.qk_norm else LlamaForCausalLM
    peer = model_class(make_config(shape)).eval()
    missing, unexpected = peer.load_state_dict(rename_weights(model), strict=False)
    tied = {"lm_head.weight"} if shape.tie_embeddings else set()
    assert not set(missing) - tied, f"transformers got no {missing}"
    assert not unexpected, f"transformers does not know {unexpected}"
    tokens = torch.arange(1, 9)[None]
    with torch.no_grad():
        difference = (peer(tokens).logits[..., : shape.vocab_size] - model(tokens, is_causal=True)).abs().max().item()
    assert difference < 1e-4, f"the exported model's logits differ by {difference}"
    return peer


def make_config(shape: ModelShape):
    """Describe our shape to transformers: Qwen3 with QK-norm, Llama without.

    Raises ImportError without transformers.
    """
    from transformers import LlamaConfig, Qwen3Config

    config_class = Qwen3Config if shape.qk_norm else LlamaConfig
    return config_class(
        vocab_size=shape.padded_vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )


def rename_weights(model: TransformerLM) -> dict[str, Tensor]:
    """Return our weights under the names that Llama and Qwen3 use."""
    shape, ours = model.shape, model.state_dict()
    heads = [width * shape.head_dim for width in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)]
    theirs = {"model.embed_tokens.weight": ours["embedding.weight"], "model.norm.weight": ours["norm.weight"]}
    theirs["lm_head.weight"] = ours["head.weight"]
    for layer in range(shape.num_layers):
        here, there = f"blocks.{layer}.", f"model.layers.{layer}."
        query, key, value = ours[f"{here}attention.qkv.weight"].split(heads)
        gate, up = ours[f"{here}feed_forward.gate_up.weight"].chunk(2)
        theirs |= {
            f"{there}self_attn.q_proj.weight": query,
            f"{there}self_attn.k_proj.weight": key,
            f"{there}self_attn.v_proj.weight": value,
            f"{there}self_attn.o_proj.weight": ours[f"{here}attention.out.weight"],
            f"{there}mlp.gate_proj.weight": gate,
            f"{there}mlp.up_proj.weight": up,
            f"{there}mlp.down_proj.weight": ours[f"{here}feed_forward.down.weight"],
            f"{there}input_layernorm.weight": ours[f"{here}attention_norm.weight"],
            f"{there}post_attention_layernorm.weight": ours[f"{here}feed_forward_norm.weight"],
        }
        if shape.qk_norm:
            theirs[f"{there}self_attn.q_norm.weight"] = ours[f"{here}attention.query_norm.weight"]
            theirs[f"{there}self_attn.k_norm.weight"] = ours[f"{here}attention.key_norm.weight"]
    return theirs
