"""A decoder-only Transformer: RMSNorm, SwiGLU, rotary positions, grouped-query attention, no biases.

    tokens [batch, seq]
      -> embedding                                        [batch, seq, d_model]
      -> num_layers x (x + attention(norm x); x + feed_forward(norm x))
      -> norm -> head                                     [batch, seq, vocab_size]

Whether a position sees only its past (autoregressive) or everything (diffusion) is an argument of each call, not of
the model: one set of weights can serve both.
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from transformerlm.models.attention import Attention, AttentionPlan
from transformerlm.models.documents import documents_rule, restart_positions
from transformerlm.models.fused_loss import Head, Scores, Targets
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.layers import Block
from transformerlm.models.norm import RMSNorm
from transformerlm.models.rope import RotaryEmbedding
from transformerlm.models.shape import ModelShape
from transformerlm.models.two_streams import (
    block_starts,
    predictor_indices,
    shared_mask,
    two_streams_rule,
)
from transformerlm.models.visibility import VisibilityRule, block_form, dense_form

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

INIT_STD = 0.02
Role = Literal["hidden", "head", "embedding", "vector"]


class TransformerLM(nn.Module):
    """The language model: tokens in, logits out."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.padded_vocab_size, shape.d_model)
        self.rope = RotaryEmbedding(shape.head_dim, shape.context_length, shape.rope_theta)
        self.blocks = nn.ModuleList(self._block(layer) for layer in range(shape.num_layers))
        self.norm = RMSNorm(shape.d_model, eps=shape.norm_eps)
        self.head = Head(shape.d_model, shape.padded_vocab_size, shape.vocab_size)
        if shape.tie_embeddings:
            self.head.weight = self.embedding.weight
        self.reset_parameters()

    def _block(self, layer: int) -> Block:
        shape = self.shape
        norm_eps = shape.norm_eps if shape.qk_norm else None
        heads = (shape.num_heads, shape.num_kv_heads)
        attention = Attention(shape.d_model, heads, layer, norm_eps, shape.attention_backend, shape.sdp_backend)
        return Block(shape.d_model, shape.d_ff, shape.norm_eps, attention)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02^2), residual outputs scaled by 1/sqrt(2 num_layers).

        The scaling keeps the residual stream's variance independent of depth (Radford et al. 2019, GPT-2, 2.3).
        """
        residual_std = INIT_STD / (2 * self.shape.num_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                parameter.normal_(std=residual_std)
            elif parameter.ndim >= 2:
                parameter.normal_(std=INIT_STD)
            else:
                parameter.fill_(1.0)

    @staticmethod
    def role_of(name: str, parameter: nn.Parameter) -> Role:
        """Tell what a parameter is for, which decides how an optimizer treats it.

        A tied embedding is met first, and named, as the embedding. Whatever else has two dimensions maps between
        hidden states.
        """
        if name.endswith("embedding.weight"):
            return "embedding"
        if name == "head.weight":
            return "head"
        return "hidden" if parameter.ndim >= 2 else "vector"

    def forward(
        self,
        tokens: Tensor,
        *,
        is_causal: bool,
        valid: Tensor | None = None,
        selected: Tensor | None = None,
        positions: Tensor | int | None = None,
        cache: KVCache | None = None,
        last_visible: Tensor | None = None,
        documents: Tensor | None = None,
        block_length: int | None = None,
        targets: Targets | None = None,
    ) -> Tensor | Scores:
        """Return the logits, or what `targets` cost: then the logits are never there all at once.

        tokens: [batch, seq] int64; with `block_length`, [batch, 2 * seq].
        is_causal: whether a position sees nothing behind it. `last_visible` overrules it.
        valid: [batch, seq] bool, False on padding, which no position then sees. Causal models do not need it for
            padding on the right.
        selected: [n] int64 indices into the flattened [batch * seq]: project only these onto the vocabulary.
        positions: [batch, seq] int64, or where every row begins; None for 0 .. seq-1.
        cache: keys and values of other positions; those of these tokens are written into it. Without `positions` the
            tokens are whole rows and nothing older is read; with them, everything up to cache.length is.
        last_visible: [batch, seq] int64, the last position each token sees; the end of its own block makes attention
            block-causal.
        documents: [batch, seq] int64, numbers of the documents in a row: each is read as if it were alone.
        block_length: the tokens are two streams, noised and clean, of rows in blocks of this length (block diffusion,
            two_streams.py); logits are those of the noised one.
        targets: one for each position that would have logits, flattened.
        Returns [batch, seq, vocab_size], or [n, vocab_size] if `selected` is given; at each position, the logits of the
        next token if is_causal, else of its own (also with shape.shift_logits, which the model allows for).
        Raises ValueError if seq exceeds the context length.
        """
        is_plain = documents is None and block_length is None
        assert is_plain or (positions is None and cache is None), "only plain rows are cached"
        if block_length is not None:
            plan = self.plan_two_streams(tokens, block_length, valid, documents)
        elif documents is not None:
            assert valid is None, "rows of documents are full"
            plan = self.plan_documents(documents, is_causal, last_visible)
        else:
            plan = self.plan_attention(tokens, is_causal, valid, positions, cache, last_visible)
        hidden = self.hidden_states(tokens, plan)
        if block_length is not None:
            hidden = self.predicting_states(hidden, block_length, documents)
        elif self.shape.shift_logits and not is_causal:  # nothing stands before the first token: it stays
            hidden = torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1)
        if selected is not None:
            hidden = hidden.flatten(0, 1)[selected]
        return self.head(hidden, targets)

    def hidden_states(self, tokens: Tensor, plan: AttentionPlan) -> Tensor:
        """Run the trunk: [batch, seq] int64 -> normalised [batch, seq, d_model], ready for the head."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, plan)
        return self.norm(x)

    def plan_attention(
        self,
        tokens: Tensor,
        is_causal: bool,
        valid: Tensor | None = None,
        positions: Tensor | int | None = None,
        cache: KVCache | None = None,
        last_visible: Tensor | None = None,
    ) -> AttentionPlan:
        """Decide once per pass what every layer needs: rotations, and the cheapest mask that is right."""
        seq = tokens.shape[1]
        self._check_length(seq)
        cos, sin = self.rope.tables(seq, positions)
        reads_cache = cache is not None and positions is not None
        if cache is not None and not reads_cache:
            cache.reach(seq)
        if reads_cache and is_causal and last_visible is None:
            assert isinstance(positions, Tensor), "causal rows that begin abreast see all of the cache: say so"
            last_visible = positions
        keys = cache.length if reads_cache else seq
        mask = None if valid is None or is_causal else valid[:, None, None, :keys]
        if last_visible is not None:
            seen = torch.arange(keys, device=tokens.device) <= last_visible[:, None, :, None]  # [batch, 1, seq, keys]
            mask = seen if mask is None else seen & mask
        return AttentionPlan(cos, sin, is_causal and last_visible is None, mask, positions, cache)

    def plan_documents(self, documents: Tensor, is_causal: bool, last_visible: Tensor | None = None) -> AttentionPlan:
        """Decide the same for rows of several documents."""
        rotations = self.rope.tables(documents.shape[1], restart_positions(documents))
        rule = documents_rule(documents, is_causal, last_visible)
        return self._plan_mask(rotations, self._form(rule, *documents.shape, documents.device))

    def plan_two_streams(
        self, tokens: Tensor, block_length: int, valid: Tensor | None, documents: Tensor | None
    ) -> AttentionPlan:
        """Decide the same for noised and clean rows of block diffusion: tokens [batch, 2 * seq]."""
        batch, seq, device = tokens.shape[0], tokens.shape[1] // 2, tokens.device
        self._check_length(seq)
        positions = None if documents is None else restart_positions(documents)
        cos, sin = (torch.cat((table, table), dim=2) for table in self.rope.tables(seq, positions))
        if valid is None and documents is None:
            mask = shared_mask(seq, block_length, device, has_blocks=self._uses_flex(device))
            return self._plan_mask((cos, sin), mask, num_noised=seq)
        rule = two_streams_rule(block_starts(seq, block_length, documents, device), documents, valid)
        return self._plan_mask((cos, sin), self._form(rule, batch, 2 * seq, device), num_noised=seq)

    def _form(self, rule: VisibilityRule, batch: int, seq: int, device: torch.device) -> "Tensor | BlockMask":
        """Put a rule into the form that the device and the backend want: FlexAttention on a GPU, else a dense mask."""
        make = block_form if self._uses_flex(device) else dense_form
        return make(rule, batch, seq, device)

    def _plan_mask(
        self, rotations: tuple[Tensor, Tensor], mask: "Tensor | BlockMask", num_noised: int = 0
    ) -> AttentionPlan:
        if isinstance(mask, Tensor):
            return AttentionPlan(*rotations, False, mask, num_noised=num_noised)
        return AttentionPlan(*rotations, False, blocks=mask)

    def _uses_flex(self, device: torch.device) -> bool:
        return device.type == "cuda" and self.shape.attention_backend == "sdpa"

    def _check_length(self, seq: int) -> None:
        if seq > self.shape.context_length:
            raise ValueError(f"{seq} tokens exceed model.context_length = {self.shape.context_length}")

    def predicting_states(self, hidden: Tensor, block_length: int, documents: Tensor | None) -> Tensor:
        """Return the states that predict the tokens of two streams: [batch, 2 * seq, d_model] -> [batch, seq, d_model].

        The clean stream needs no logits; only shifted ones are taken from it, where a block begins.
        """
        seq = hidden.shape[1] // 2
        if not self.shape.shift_logits:
            return hidden[:, :seq]
        indices = predictor_indices(block_starts(seq, block_length, documents, hidden.device))
        return hidden.gather(1, indices[..., None].expand(hidden.shape[0], seq, hidden.shape[2]))

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Allocate an empty cache for `batch` rows of up to `capacity` positions."""
        shape = self.shape
        sizes = (shape.num_layers, batch, shape.num_kv_heads, capacity, shape.head_dim)
        weight = self.embedding.weight
        return KVCache(sizes, weight.dtype, weight.device)

    def parameter_count(self) -> int:
        """Count the parameters, tied ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, seq: int, *, is_causal: bool, is_training: bool = True) -> int:
        """Count the floating-point operations of the matrix products for one token of a row of `seq` tokens.

        Two per weight of every matrix (the embedding is a look-up and counts nothing), plus 4 * width per layer and
        visible key for the two attention products; a causal query sees (seq + 1) / 2 keys on average. The backward
        pass doubles the work of the forward pass, so training counts three times.
        """
        shape = self.shape
        weights = sum(p.numel() for name, p in self.blocks.named_parameters() if p.ndim >= 2)
        weights += shape.padded_vocab_size * shape.d_model
        keys = (seq + 1) / 2 if is_causal else seq
        forward = 2 * weights + 4 * shape.num_layers * shape.d_model * keys
        return round(forward * (3 if is_training else 1))

    def kv_bytes_per_token(self, dtype: torch.dtype | None = None) -> int:
        """Count the bytes one position occupies in the KV cache, by default in the weights' dtype."""
        shape = self.shape
        width = (dtype or self.embedding.weight.dtype).itemsize
        return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * width
