"""Autoregressive decoding: prefill the prompt once, then one token per pass against the KV cache."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transformerlm.inference.sampling import SamplingSettings, sample_tokens
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.transformer import TransformerLM

TokenCallback = Callable[[int, int], bool]
"""Called with (row, token) as it is drawn; returns True to end the row there."""


def prefill(model: TransformerLM, tokens: Tensor, lengths: Tensor, cache: KVCache) -> Tensor:
    """Run right-padded prompts and return the logits after each one's last token.

    tokens: [batch, seq] int64.  lengths: [batch] int64.  Returns [batch, vocab_size].
    """
    batch, seq = tokens.shape
    positions = torch.arange(seq, device=tokens.device).expand(batch, seq)
    last = torch.arange(batch, device=tokens.device) * seq + lengths - 1
    return model(tokens, is_causal=True, positions=positions, cache=cache, selected=last)


def decode_one_token(model: TransformerLM, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
    """Run one token per row at its position: two [batch] int64 -> logits [batch, vocab_size]."""
    return model(tokens[:, None], is_causal=True, positions=positions[:, None], cache=cache)[:, 0]


@torch.inference_mode()
def generate_autoregressive(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    total_length: int,
    settings: SamplingSettings,
    generators: Sequence[torch.Generator],
    on_token: TokenCallback,
) -> tuple[list[list[int]], int]:
    """Continue every prompt up to total_length tokens, or until on_token ends its row.

    Prompts may differ in length; each row is what it would be alone. Returns the rows, prompts included, and the
    number of passes through the model.
    """
    device = model.embedding.weight.device
    rows = [list(prompt) for prompt in prompts]
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros((len(rows), int(lengths.max())), dtype=torch.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    cache = model.new_cache(len(rows), total_length)
    logits = prefill(model, padded.to(device), lengths.to(device), cache)
    is_done = [len(row) >= total_length for row in rows]
    positions, evaluations = lengths.to(device), 1
    while True:
        tokens = sample_tokens(logits, settings, generators)
        for index, token in enumerate(tokens.tolist()):
            if is_done[index]:
                continue
            rows[index].append(token)
            is_done[index] = on_token(index, token) or len(rows[index]) >= total_length
        if all(is_done):
            return rows, evaluations
        # A finished row keeps running in place until the others are done; its last slot takes the writes.
        logits = decode_one_token(model, tokens, positions.clamp(max=total_length - 1), cache)
        positions, evaluations = positions + 1, evaluations + 1
