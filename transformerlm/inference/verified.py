"""Parallel decoding that autoregression verifies: one set of weights drafts and checks.

    known     a b c            c has not been through the causal pass yet
    draft     c M M M          one bidirectional pass over a few masks, against the causal cache: d e x
    verify    c d e x          one causal pass: what autoregression itself draws after each: d e f g
    keep      d e f            the longest agreeing prefix, and the first token it disagrees on

Both passes draw with the same random numbers, position by position, and the causal pass has the last word: the text is
the one that plain autoregressive decoding writes with this seed, whatever the drafts are worth. Good drafts only make
it quicker. (Speculative decoding, Leviathan et al. 2023, arXiv 2211.17192, with the model as its own drafter.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from transformerlm.inference.autoregressive import (
    AutoregressiveSettings,
    Listener,
    Reader,
    TokenChooser,
    padded_beginnings,
    prefill,
)
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.decoded import Cost, Decoded
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.transformer import TransformerLM


@torch.inference_mode()
def decode_verified(
    model: TransformerLM,
    canvases: Sequence[Canvas],
    settings: AutoregressiveSettings,
    sampling: SamplingSettings,
    generators: Sequence[torch.Generator],
    listener: Listener | None = None,
    draft_length: int = 8,
) -> Decoded:
    """Fill every canvas with what decode_autoregressive would, in fewer and wider passes.

    settings.mask_id is needed: drafts begin as masks.  draft_length: tokens guessed at once.
    Raises ValueError with a repetition penalty, which depends on tokens that are not known yet.
    """
    if sampling.repetition_penalty != 1:
        raise ValueError("verified decoding cannot apply a repetition penalty; set repetition_penalty = 1")
    assert settings.mask_id is not None, "drafts begin as masks"
    device = model.embedding.weight.device
    chooser, cost = TokenChooser(canvases, settings, sampling, generators, device), Cost()
    reader = Reader(canvases, settings, listener)
    beginnings, lengths = padded_beginnings(canvases)
    draft_length = min(draft_length, chooser.width - 1)
    cache = model.new_cache(len(canvases), chooser.width)
    logits = prefill(model, beginnings.to(device), lengths.to(device), cache)
    cost.count(*beginnings.shape, 1)
    tokens, log_probs = chooser.choose(logits[:, None], lengths.to(device)[:, None])
    kept = torch.ones(len(canvases), dtype=torch.int64)
    while True:
        drawn, scores = tokens.tolist(), log_probs.tolist()
        for row, count in enumerate(kept.tolist()):
            reader.read(row, drawn[row][:count], scores[row][:count])
        if all(reader.is_done):
            return reader.result(cost)
        window = _Window(reader.rows, draft_length, chooser.width, device)
        cache.reach(window.reach)
        draft = _draft(model, chooser, cache, window)
        tokens, log_probs, kept = _verify(model, chooser, cache, window, draft)
        for _ in ("draft", "verify"):
            cost.count(*window.positions.shape, draft_length + 1)


class _Window:
    """The last known token of each row and the positions of its draft: [batch, 1 + draft_length]."""

    def __init__(self, rows: Sequence[Sequence[int]], draft_length: int, width: int, device: torch.device) -> None:
        known = torch.tensor([len(row) for row in rows])
        positions = known[:, None] - 1 + torch.arange(draft_length + 1)
        # Beyond the end the last position takes all writes; what is predicted from there is never read.
        self.positions = positions.clamp(max=width - 1).to(device)
        self.last_tokens = torch.tensor([row[-1] for row in rows]).to(device)
        self.reach = int(min(width, known.max() + draft_length))

    @property
    def next_positions(self) -> Tensor:
        """The positions that the window's logits predict causally."""
        return self.positions + 1


def _draft(model: TransformerLM, chooser: TokenChooser, cache: KVCache, window: _Window) -> Tensor:
    """Guess the tokens behind the last known one: [batch, draft_length] int64."""
    tokens = torch.full_like(window.positions, chooser.settings.mask_id)
    tokens[:, 0] = window.last_tokens
    ends = window.positions[:, -1:].expand_as(window.positions)
    logits = model(tokens, is_causal=False, positions=window.positions, cache=cache, last_visible=ends)
    return chooser.choose(logits[:, 1:], window.positions[:, 1:])[0]


def _verify(
    model: TransformerLM, chooser: TokenChooser, cache: KVCache, window: _Window, draft: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what autoregression draws after each token of the window, log p of it, and how many draws hold.

    A draw holds if all drafts before it agree with the draws. Returns [batch, 1 + draft_length] twice, and [batch].
    """
    tokens = torch.cat((window.last_tokens[:, None], draft), dim=1)
    logits = model(tokens, is_causal=True, positions=window.positions, cache=cache)
    drawn, log_probs = chooser.choose(logits, window.next_positions)
    return drawn, log_probs, 1 + (drawn[:, :-1] == draft).cumprod(dim=1).sum(dim=1)
