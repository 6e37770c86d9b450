"""Multi-head attention with grouped-query heads, in two equal backends.

"mha" is written out and is the reference; "sdpa" hands the same computation to torch's fused kernels.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from transformerlm.models import few_rows
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.linear import Linear
from transformerlm.models.norm import RMSNorm
from transformerlm.models.rope import rotate
from transformerlm.models.shape import AttentionBackend, SdpBackendName
from transformerlm.models.visibility import attend_blocks

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SDP_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer of one forward pass shares."""

    cos: Tensor
    """[1 or batch, 1, seq, head_dim] of the queries' positions."""
    sin: Tensor
    is_causal: bool
    """True: position i sees 0 .. i through the kernel's own flag, without a dense mask."""
    mask: Tensor | None = None
    """[batch, 1, 1 or seq, keys] bool, True where a query may look; excludes is_causal."""
    positions: Tensor | int | None = None
    """[batch, seq] int64, where the keys go in the cache, or where all rows begin; None at the very beginning."""
    cache: KVCache | None = None
    num_noised: int = 0
    """Of two streams: so many positions come first, and none behind them sees any of them."""
    blocks: "BlockMask | None" = None
    """What `mask` says, as blocks for FlexAttention; excludes it."""


class Attention(nn.Module):
    """Attention of num_heads queries over num_kv_heads keys and values (Ainslie et al. 2023, arXiv 2305.13245)."""

    def __init__(
        self,
        d_model: int,
        heads: tuple[int, int],
        layer: int,
        norm_eps: float | None = None,
        backend: AttentionBackend = "sdpa",
        sdp_backend: SdpBackendName = "auto",
    ) -> None:
        """heads: (num_heads, num_kv_heads).  norm_eps: epsilon of QK-norm, or None to go without it."""
        super().__init__()
        self.num_heads, self.num_kv_heads = heads
        self.head_dim = d_model // self.num_heads
        self.layer, self.backend, self.sdp_backend = layer, backend, sdp_backend
        self.qkv = Linear(d_model, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim)
        self.out = Linear(self.num_heads * self.head_dim, d_model)
        # QK-norm keeps the attention logits bounded (Dehghani et al. 2023, arXiv 2302.05442).
        self.norm_eps = norm_eps
        self.query_norm = nn.Identity() if norm_eps is None else RMSNorm(self.head_dim, eps=norm_eps)
        self.key_norm = nn.Identity() if norm_eps is None else RMSNorm(self.head_dim, eps=norm_eps)

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """x: [batch, seq, d_model] -> the same shape."""
        batch, seq, _ = x.shape
        queries, keys, values = self._heads(x, plan)
        if plan.cache is not None and plan.positions is None:  # a whole row: its own keys are all there is to see
            plan.cache.write_beginning(self.layer, keys, values)
        elif plan.cache is not None:
            keys, values = plan.cache.write(self.layer, keys, values, plan.positions)
        mixed = self.attend(queries, keys, values, plan)
        return self.out(mixed.transpose(1, 2).reshape(batch, seq, -1))

    def _heads(self, x: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalized and rotated queries and keys, and values, [batch, heads of each, seq, head_dim]."""
        heads = self.qkv(x).view(*x.shape[:2], -1, self.head_dim)
        is_ready = few_rows.can_take(x) and not self._is_watched() and not torch.compiler.is_compiling()
        if is_ready:
            has_norms = self.norm_eps is not None
            norms = (self.query_norm.weight, self.key_norm.weight) if has_norms else None
            eps = self.norm_eps if has_norms else 1.0
            few_rows.rotate_heads(heads, self.num_kv_heads, (plan.cos, plan.sin), norms, eps)
        counts = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        queries, keys, values = heads.transpose(1, 2).split(counts, dim=1)
        if is_ready:
            return queries, keys, values
        queries = rotate(self.query_norm(queries), plan.cos, plan.sin)
        return queries, rotate(self.key_norm(keys), plan.cos, plan.sin), values

    def _is_watched(self) -> bool:
        """Tell whether hooks want to see what the kernel would change in place, or never make."""
        return any(module._forward_hooks for module in (self.qkv, self.query_norm, self.key_norm))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan) -> Tensor:
        """Mix the values.

        queries: [batch, heads, seq, head_dim].  keys, values: [batch, kv_heads, keys, head_dim].
        Returns [batch, heads, seq, head_dim].
        """
        if plan.blocks is not None:
            return attend_blocks(queries, keys, values, plan.blocks)
        if self.backend == "mha":
            return attend_reference(queries, keys, values, plan)
        kernels = nullcontext() if self.sdp_backend == "auto" else sdpa_kernel(SDP_BACKENDS[self.sdp_backend])
        with kernels:
            if not plan.num_noised:
                return self._mix(queries, keys, values, plan.mask, plan.is_causal)
            noised, clean = slice(plan.num_noised), slice(plan.num_noised, None)
            mixed = (
                self._mix(queries[:, :, noised], keys, values, plan.mask[:, :, noised]),
                self._mix(*(x[:, :, clean] for x in (queries, keys, values)), plan.mask[:, :, clean, clean]),
            )
            return torch.cat(mixed, dim=2)

    def _mix(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        enable_gqa = self.num_heads != self.num_kv_heads
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=is_causal, enable_gqa=enable_gqa
        )


def attend_reference(queries: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan) -> Tensor:
    """Compute softmax(q k^T / sqrt(head_dim)) v as it is written; shapes as in Attention.attend."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])  # [batch, heads, seq, keys]
    mask = plan.mask
    if plan.is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1) @ values
