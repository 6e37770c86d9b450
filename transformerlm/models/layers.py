"""The feed-forward layer and the residual block."""

import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.models.attention import Attention, AttentionPlan
from transformerlm.models.linear import Linear
from transformerlm.models.norm import RMSNorm


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), without biases (Shazeer 2020, arXiv 2002.05202).

    Gate and up share one matrix product; the first half of its output is the gate.
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_up = Linear(d_model, 2 * d_ff)
        self.down = Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, seq, d_model] -> the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One pre-norm residual block: attention, then feed-forward."""

    def __init__(self, d_model: int, d_ff: int, norm_eps: float, attention: Attention) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(d_model, eps=norm_eps)
        self.attention = attention
        self.feed_forward_norm = RMSNorm(d_model, eps=norm_eps)
        self.feed_forward = FeedForward(d_model, d_ff)

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """x: [batch, seq, d_model] -> the same shape."""
        x = x + self.attention(self.attention_norm(x), plan)
        return x + self.feed_forward(self.feed_forward_norm(x))
