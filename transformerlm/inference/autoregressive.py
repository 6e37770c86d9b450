"""Autoregressive decoding: prefill the prompt once, then one token per pass against the key-value cache.

Everything stays on the device: logits, draws, the tokens so far. The host looks at what was drawn every few steps only,
because on a GPU looking means waiting; what is drawn beyond an end is thrown away.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.decoded import Change, Cost, Decoded
from transformerlm.inference.sampling import (
    SamplingSettings,
    draw_uniforms,
    invert_distribution,
    penalize_repeats,
    sample_tokens,
)
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.transformer import TransformerLM

Listener = Callable[[Sequence[Change]], Collection[int]]
"""Called with what a step changed; returns the rows that shall end there."""
LOOK_EVERY_STEPS = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True, slots=True)
class AutoregressiveSettings:
    """How to decode."""

    end_id: int | None
    """The token that ends a text; None if none does."""
    mask_id: int | None = None
    """A token that is never drawn, for models that know masks."""
    look_every: int | None = None
    """Steps between looks at what was drawn; None: 1 on a CPU, 16 on a GPU. The texts do not depend on it."""
    is_compiled: bool = False
    """Compile the one-token step; on a GPU it is replayed as a CUDA graph."""


def prefill(model: TransformerLM, tokens: Tensor, lengths: Tensor, cache: KVCache) -> Tensor:
    """Run right-padded prompts and return the logits after each one's last token.

    tokens: [batch, seq] int64.  lengths: [batch] int64.  Returns [batch, vocab_size].
    """
    last = torch.arange(len(tokens), device=tokens.device) * tokens.shape[1] + lengths - 1
    return model(tokens, is_causal=True, cache=cache, selected=last)


def decode_one_token(model: TransformerLM, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
    """Run one token per row at its position: two [batch] int64 -> logits [batch, vocab_size]."""
    return model(tokens[:, None], is_causal=True, positions=positions[:, None], cache=cache)[:, 0]


def decode_one_token_abreast(model: TransformerLM, tokens: Tensor, position: int, cache: KVCache) -> Tensor:
    """Do the same for rows that all stand at the cache's last position: they see all of it, so no mask is needed."""
    return model(tokens[:, None], is_causal=False, positions=position, cache=cache)[:, 0]


def compile_step(cache: KVCache) -> Callable[..., Tensor]:
    """Compile the one-token step against a cache of fixed length: always the same shapes."""
    cache.reach(cache.capacity)
    is_cuda = cache.keys[0].is_cuda
    if is_cuda:  # a CUDA graph writes to fixed addresses: say that the cache stays where it is
        for tensor in (*cache.keys, *cache.values):
            torch._dynamo.mark_static_address(tensor)
    mode = "reduce-overhead" if is_cuda else "default"
    return torch.compile(decode_one_token, mode=mode, fullgraph=True, dynamic=False)


class TokenChooser:
    """Turn logits at known positions into tokens: forbidden ones, draws, given ones, log-probabilities.

    The draw at a position depends on the logits, the row's seed and the position alone, so that whoever computes the
    same logits, one by one or several at once, draws the same tokens.
    """

    def __init__(
        self,
        canvases: Sequence[Canvas],
        settings: AutoregressiveSettings,
        sampling: SamplingSettings,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self.settings, self.sampling = settings, sampling
        self.width = max(len(canvas.tokens) for canvas in canvases)
        canvas_tokens = torch.full((len(canvases), self.width), OPEN, dtype=torch.int64)
        for row, canvas in enumerate(canvases):
            canvas_tokens[row, : len(canvas.tokens)] = torch.from_numpy(canvas.tokens)
        self.given = canvas_tokens.to(device)
        self.earliest_end = torch.tensor([canvas.earliest_end for canvas in canvases]).to(device)
        self.has_earliest_end = any(canvas.earliest_end > canvas.beginning for canvas in canvases)
        # Each row draws for its own length, so that its numbers are those it would draw alone.
        self.uniforms = torch.zeros((len(canvases), self.width), dtype=torch.float64, device=device)
        for row, canvas in enumerate(canvases):
            self.uniforms[row, : len(canvas.tokens)] = draw_uniforms([generators[row]], (len(canvas.tokens),), device)
        self.is_seen: Tensor | None = None

    def choose(self, logits: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the token at each position.

        logits: [batch, n, vocab_size].  positions: [batch, n] int64; beyond the width nothing sensible comes out.
        Returns tokens [batch, n] int64 and their log-probabilities [batch, n] before penalty, temperature and filters;
        log-probability 0 for given tokens.
        """
        positions = positions.clamp(max=self.width - 1)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.settings.mask_id is not None:
            logits[..., self.settings.mask_id] = -torch.inf
        if self.has_earliest_end and self.settings.end_id is not None:
            is_early = positions < self.earliest_end[:, None]
            logits[..., self.settings.end_id].masked_fill_(is_early, -torch.inf)
        probabilities = logits.softmax(dim=-1)
        uniforms = self.uniforms.gather(1, positions)
        if self.sampling.is_plain:
            tokens = invert_distribution(probabilities, uniforms)
        else:
            scores = logits if self.sampling.repetition_penalty == 1 else self._penalize(logits)
            tokens = sample_tokens(scores, self.sampling, uniforms)
        log_probs = probabilities.gather(-1, tokens[..., None]).squeeze(-1).log()
        given = self.given.gather(1, positions)
        is_given = given != OPEN
        tokens = torch.where(is_given, given, tokens)
        if self.is_seen is not None:
            self.is_seen.scatter_(1, tokens, True)
        return tokens, log_probs.masked_fill(is_given, 0.0)

    def _penalize(self, logits: Tensor) -> Tensor:
        if self.is_seen is None:
            self.is_seen = torch.zeros((len(logits), logits.shape[-1]), dtype=torch.bool, device=logits.device)
            beginnings = (self.given == OPEN).cumsum(dim=1) == 0
            rows, columns = beginnings.nonzero(as_tuple=True)
            self.is_seen[rows, self.given[rows, columns]] = True
        return penalize_repeats(logits, self.is_seen[:, None], self.sampling.repetition_penalty)


class Reader:
    """The host's side: what was drawn, which rows are done, who listens."""

    def __init__(self, canvases: Sequence[Canvas], settings: AutoregressiveSettings, listener: Listener | None) -> None:
        self.canvases, self.settings, self.listener = canvases, settings, listener
        self.rows = [canvas.tokens[: canvas.beginning].tolist() for canvas in canvases]
        self.log_probs = [[0.0] * len(row) for row in self.rows]
        self.steps = [0] * len(canvases)
        self.is_done = [len(row) >= len(canvas.tokens) for row, canvas in zip(self.rows, canvases, strict=True)]

    def read(self, row: int, tokens: Sequence[int], log_probs: Sequence[float]) -> int:
        """Append what was drawn for a row, up to where it ends; returns how many tokens were taken."""
        taken = 0
        for token, log_prob in zip(tokens, log_probs, strict=True):
            if self.is_done[row]:
                break
            canvas, position = self.canvases[row], len(self.rows[row])
            self.rows[row].append(token)
            self.log_probs[row].append(log_prob)
            change = Change(row, self.steps[row], position, token, log_prob)
            ended = self.listener([change]) if self.listener is not None else ()
            is_end = token == self.settings.end_id and bool(canvas.is_open[position])
            self.is_done[row] = is_end or row in ended or position + 1 >= len(canvas.tokens)
            self.steps[row], taken = self.steps[row] + 1, taken + 1
        return taken

    def result(self, cost: Cost) -> Decoded:
        """Return the finished rows; a row that ended early stays short."""
        return Decoded(self.rows, self.log_probs, cost)


def padded_beginnings(canvases: Sequence[Canvas]) -> tuple[Tensor, Tensor]:
    """Lay the given beginnings out as rows, padded on the right: tokens [batch, seq] and lengths [batch], int64."""
    lengths = torch.tensor([canvas.beginning for canvas in canvases])
    assert int(lengths.min()) > 0, "an autoregressive model needs a token to begin from"
    tokens = torch.zeros((len(canvases), int(lengths.max())), dtype=torch.int64)
    for row, canvas in enumerate(canvases):
        tokens[row, : canvas.beginning] = torch.from_numpy(canvas.tokens[: canvas.beginning])
    return tokens, lengths


@torch.inference_mode()
def decode_autoregressive(
    model: TransformerLM,
    canvases: Sequence[Canvas],
    settings: AutoregressiveSettings,
    sampling: SamplingSettings,
    generators: Sequence[torch.Generator],
    listener: Listener | None = None,
) -> Decoded:
    """Fill every canvas from left to right; tokens given behind the first open position are taken as they come.

    Canvases may differ in length; each row is what it would be alone.
    """
    device = model.embedding.weight.device
    look_every = settings.look_every or LOOK_EVERY_STEPS[device.type]
    chooser, cost = TokenChooser(canvases, settings, sampling, generators, device), Cost()
    reader = Reader(canvases, settings, listener)
    beginnings, lengths = padded_beginnings(canvases)
    is_abreast = not settings.is_compiled and bool((lengths == lengths[0]).all())
    cache = model.new_cache(len(canvases), chooser.width)
    step = compile_step(cache) if settings.is_compiled else decode_one_token
    positions = lengths.to(device)
    logits = prefill(model, beginnings.to(device), positions, cache)
    cost.count(*beginnings.shape, 1)
    reach, unread = beginnings.shape[1], []
    while True:
        tokens, log_probs = chooser.choose(logits[:, None], positions[:, None])
        unread.append((tokens, log_probs))
        reach += 1
        if len(unread) == look_every or reach > chooser.width:
            drawn, scores = (torch.cat(parts, dim=1).tolist() for parts in zip(*unread, strict=True))
            for row in range(len(canvases)):
                reader.read(row, drawn[row], scores[row])
            unread = []
            if all(reader.is_done):
                return reader.result(cost)
        # A finished row keeps running in place until the others are done; its last slot takes the writes.
        cache.reach(min(reach, chooser.width))
        if is_abreast:
            logits = decode_one_token_abreast(model, tokens[:, 0], min(reach, chooser.width) - 1, cache)
        else:
            logits = step(model, tokens[:, 0], positions.clamp(max=chooser.width - 1), cache)
        cost.count(len(canvases), 1, 1)
        positions = positions + 1
