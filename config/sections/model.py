"""[model]: the shape of the Transformer and how it computes attention."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from config.section import Section, rule
from config.words import join_or

FEED_FORWARD_MULTIPLE = 64  # d_ff is rounded up to this, so that matrix multiplications fill their tiles


def _default_feed_forward(fields: dict[str, Any]) -> int:
    """Return 8/3 of the width, rounded up: SwiGLU has three matrices where a plain MLP of 4 x width has two."""
    return -(-8 * fields["d_model"] // (3 * FEED_FORWARD_MULTIPLE)) * FEED_FORWARD_MULTIPLE


class ModelSection(Section):
    """A decoder-only Transformer: RMSNorm before each block, SwiGLU, rotary positions, no biases."""

    vocab_size: PositiveInt
    """Number of token ids, special tokens included; must equal the tokenizer's."""
    context_length: PositiveInt
    """Longest sequence the model is trained on and generates [tokens]."""
    d_model: PositiveInt
    """Width of the residual stream [features]."""
    num_layers: PositiveInt
    """Number of Transformer blocks."""
    num_heads: PositiveInt
    """Number of query heads; divides d_model into heads of an even size."""
    num_kv_heads: PositiveInt = Field(default_factory=lambda fields: fields["num_heads"])
    """Number of key and value heads (grouped-query attention); divides num_heads. Default: num_heads."""
    d_ff: PositiveInt = Field(default_factory=_default_feed_forward)
    """Hidden width of the feed-forward layers [features]. Default: 8/3 of d_model, rounded up to a multiple of 64."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position frequencies; larger for longer contexts."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the mean square inside RMSNorm."""
    attention_backend: Literal["sdpa", "mha"] = "sdpa"
    """`sdpa`: torch's fused attention; `mha`: written out, slower, the reference."""
    sdp_backend: Literal["auto", "flash", "mem_efficient", "math", "cudnn"] = "auto"
    """Kernel that `sdpa` must use; `auto` lets torch choose the fastest that fits."""
    qk_norm: bool = False
    """Normalise queries and keys per head before attention: steadier at high learning rates."""
    tie_embeddings: bool = False
    """Use one matrix for the token embedding and the output head: fewer parameters."""

    @rule("num_heads", "d_model")
    def heads_divide_width(num_heads: int, d_model: int) -> str | None:
        """Require heads of an equal and even size (rotary embedding turns features in pairs)."""
        if d_model % (2 * num_heads) == 0:
            return None
        fitting = [heads for heads in range(1, d_model // 2 + 1) if d_model % (2 * heads) == 0]
        if not fitting:
            return f"no number of heads fits d_model = {d_model}; make d_model even"
        near = sorted(sorted(fitting, key=lambda heads: abs(heads - num_heads))[:4])
        return (
            f"{num_heads} heads do not cut d_model = {d_model} into heads of an equal, even size; "
            f"use {join_or(near)}, or change d_model"
        )

    @rule("num_kv_heads", "num_heads")
    def kv_heads_divide_heads(num_kv_heads: int, num_heads: int) -> str | None:
        """Require the same number of query heads for each key and value head."""
        if num_heads % num_kv_heads == 0:
            return None
        fitting = [heads for heads in range(1, num_heads + 1) if num_heads % heads == 0]
        return f"{num_kv_heads} does not divide num_heads = {num_heads}; use {join_or(fitting)}"
