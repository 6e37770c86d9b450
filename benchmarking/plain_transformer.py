"""The floor of the training benchmark: the same network in plain PyTorch, written straight down, and nothing else.

Seven matrices per layer as in a textbook, torch's own attention, norm and cross-entropy. What a training stack adds in
speed or in cost shows against it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.models.shape import ModelShape


class PlainLayer(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        width, hidden = shape.d_model, shape.d_ff
        self.num_heads, self.num_kv_heads, self.head_dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, self.num_kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(width, self.num_kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.attention_norm = nn.RMSNorm(width, eps=shape.norm_eps)
        self.feed_forward_norm = nn.RMSNorm(width, eps=shape.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [batch, seq, d_model] -> the same shape."""
        batch, seq, width = x.shape
        normed = self.attention_norm(x)
        queries = self.query(normed).view(batch, seq, self.num_heads, self.head_dim).transpose(1, 2)
        keys = self.key(normed).view(batch, seq, self.num_kv_heads, self.head_dim).transpose(1, 2)
        values = self.value(normed).view(batch, seq, self.num_kv_heads, self.head_dim).transpose(1, 2)
        queries, keys = rotate_half(queries, cos, sin), rotate_half(keys, cos, sin)
        is_grouped = self.num_heads != self.num_kv_heads
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=is_grouped)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, seq, width))
        normed = self.feed_forward_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to x: [batch, heads, seq, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class PlainTransformer(nn.Module):
    """Embedding, layers, norm, head, and the mean loss of the next token."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.padded_vocab_size, shape.d_model)
        self.layers = nn.ModuleList(PlainLayer(shape) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.d_model, eps=shape.norm_eps)
        self.head = nn.Linear(shape.d_model, shape.padded_vocab_size, bias=False)
        if shape.tie_embeddings:
            self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.02)
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.arange(shape.context_length)[:, None] * frequencies
        self.register_buffer("cos", torch.cat((angles, angles), dim=-1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angles, angles), dim=-1).sin(), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """tokens, targets: [batch, seq] int64 -> [] mean loss in nats."""
        seq = tokens.shape[1]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:seq], self.sin[:seq])
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())
