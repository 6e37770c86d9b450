"""A masked-diffusion language model made with transformerlm, for transformers.

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    print(tokenizer.decode(model.generate(ids, total_length=160)[0], skip_special_tokens=True))

It is Llama's Transformer without the causal mask: every position sees all others, and the logits at a position are
those of its own token (also with `shift_logits`, where they are computed at the position before it). Text is made by
filling masks in, after LLaDA (Nie et al. 2025, arXiv 2502.09992).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from .configuration_transformerlm import MaskedDiffusionConfig


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, in float32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width] -> the same."""
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """Every position looks at every other, with rotary positions and grouped keys and values."""

    def __init__(self, config: MaskedDiffusionConfig):
        super().__init__()
        self.head_dim = config.head_dim
        queries, keys = (count * config.head_dim for count in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.has_norm = config.qk_norm

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x: [batch, seq, width].  mask: [batch, 1, 1, seq] bool, True where there is text."""
        heads = (*x.shape[:2], -1, self.head_dim)
        queries, keys = self.q_proj(x).view(heads), self.k_proj(x).view(heads)
        if self.has_norm:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys = (rotate(each.transpose(1, 2), *rotation) for each in (queries, keys))
        values = self.v_proj(x).view(heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: MaskedDiffusionConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, seq, width] -> the same."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each behind its norm and added to what it saw."""

    def __init__(self, config: MaskedDiffusionConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x: [batch, seq, width] -> the same."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Tokens to final states."""

    def __init__(self, config: MaskedDiffusionConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MaskedDiffusionLM(PreTrainedModel):
    """The model: a token's logits stand at its own position."""

    config_class = MaskedDiffusionConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - transformers' own protocol

    def __init__(self, config: MaskedDiffusionConfig):
        super().__init__(config)
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.lm_head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, return_dict: bool | None = None, **unused
    ) -> MaskedLMOutput:
        """Predict every token.

        input_ids: [batch, seq] int64, masks where text is to be found.
        attention_mask: [batch, seq], 0 on padding.
        Returns logits [batch, seq, vocab_size].
        """
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(f"{input_ids.shape[1]} tokens exceed the context of {self.config.max_position_embeddings}")
        x = self.model.embed_tokens(input_ids)
        rotation = tuple(table.to(x) for table in rotary_tables(input_ids.shape[1], self.config))
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        for layer in self.model.layers:
            x = layer(x, rotation, mask)
        if self.config.shift_logits:  # a token is predicted at the position before it, the first at its own
            x = torch.cat((x[:, :1], x[:, :-1]), dim=1)
        return MaskedLMOutput(logits=self.lm_head(self.model.norm(x)))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        total_length: int | None = None,
        steps: int | None = None,
        block_length: int = 32,
        temperature: float = 0.0,
    ) -> Tensor:
        """Continue one text by denoising, block by block; each step keeps the predictions that are surest.

        input_ids: [1, prompt] int64, the end-of-text token first (the tokenizer puts it there).
        total_length: tokens in all; by default as many as the model was trained on.
        steps: passes through the model; by default one per token.
        Returns [1, length] int64, cut behind the first end-of-text token.
        """
        mask_id, start = self.config.mask_token_id, input_ids.shape[1]
        total_length = total_length or self.config.max_position_embeddings
        tokens = input_ids.new_full((1, total_length), mask_id)
        tokens[:, :start] = input_ids
        blocks = [
            (first, min(first + block_length, total_length)) for first in range(start, total_length, block_length)
        ]
        if steps is not None and steps < len(blocks):
            raise ValueError(f"steps = {steps} is fewer than the {len(blocks)} blocks; raise steps or block_length")
        for index, (first, last) in enumerate(blocks):
            share = last - first if steps is None else steps // len(blocks) + (index < steps % len(blocks))
            quota, remainder = divmod(last - first, share)
            for step in range(min(share, last - first)):
                self._unmask(tokens, first, last, quota + (step < remainder), temperature)
                end = self._settled_end(tokens, start)
                if end is not None:
                    return tokens[:, :end]
        return tokens

    def _unmask(self, tokens: Tensor, first: int, last: int, count: int, temperature: float) -> None:
        """Predict the masks of a block, and keep the surest of the predictions."""
        logits = self(tokens).logits[0, first:last].float()
        logits[:, self.config.mask_token_id] = -torch.inf
        log_probs = logits.log_softmax(-1)
        if temperature > 0:  # in float64, or rare tokens would come too rarely
            chosen = torch.multinomial((log_probs.double() / temperature).softmax(-1), 1)
        else:
            chosen = log_probs.argmax(-1, keepdim=True)
        sureness = log_probs.gather(1, chosen)[:, 0]
        sureness[tokens[0, first:last] != self.config.mask_token_id] = -torch.inf
        kept = sureness.argsort(descending=True, stable=True)[:count]
        tokens[0, first + kept] = chosen[kept, 0]

    def _settled_end(self, tokens: Tensor, start: int) -> int | None:
        """Return the place behind the first end-of-text token if no mask stands before it."""
        row = tokens[0, start:]
        ends = (row == self.config.eos_token_id).nonzero()
        if len(ends) and not (row[: ends[0]] == self.config.mask_token_id).any():
            return start + int(ends[0]) + 1
        return None


def rotary_tables(seq: int, config: MaskedDiffusionConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, [seq, head_dim] float32."""
    frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).double() / config.head_dim)
    angles = torch.outer(torch.arange(seq).double(), frequencies).repeat(1, 2)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature i together with feature i + head_dim / 2; x: [batch, heads, seq, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
