"""What a diffusion step recomputes: everything, or a window against cached keys and values.

    none     every position, at every step
    prefix   at the first step of a block everything; then the block and all behind it, against what lies before it
    dual     at the first step of a block everything; then the block alone, against all that surrounds it
    block    the block alone against finished blocks, which never see it: exact for block-causal models

prefix and dual keep keys and values that a bidirectional model would have changed (Fast-dLLM, Wu et al. 2025,
arXiv 2505.22618): approximations, except for a model of one layer. block is exact (BD3-LM, Arriola et al. 2025,
arXiv 2503.09573).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from transformerlm.inference.decoded import Cost
from transformerlm.inference.plan import Block
from transformerlm.models.kv_cache import KVCache
from transformerlm.models.transformer import TransformerLM

CacheName = Literal["none", "prefix", "dual", "block"]
MERGE_POSITIONS = 128
"""Padding that costs less than a pass of its own, about [positions]."""


@dataclass(frozen=True, slots=True)
class Window:
    """The block that each of some rows works on; shorter blocks are padded."""

    rows: Tensor
    """[n] int64, indices into the batch."""
    positions: Tensor
    """[n, block] int64; beyond a block's end its last position again."""
    is_inside: Tensor
    """[n, block] bool, False on padding."""
    start: int | None = None
    """Where all rows begin, if they stand abreast and none is padded."""

    @classmethod
    def over(cls, rows: Sequence[int], ranges: Sequence[tuple[int, int]], device: torch.device) -> Self:
        """Build the window over one range (start, end) of each row."""
        bounds = torch.tensor(ranges)
        width = int((bounds[:, 1] - bounds[:, 0]).max())
        positions = bounds[:, :1] + torch.arange(width)
        is_inside = positions < bounds[:, 1:]
        positions = torch.minimum(positions, bounds[:, 1:] - 1)
        start = ranges[0][0] if len(set(ranges)) == 1 else None
        return cls(torch.tensor(rows).to(device), positions.to(device), is_inside.to(device), start)

    def take(self, indices: list[int]) -> "Window":
        """Return the window of some of its rows."""
        if len(indices) == len(self.rows):
            return self
        chosen = torch.tensor(indices, device=self.rows.device)
        return Window(self.rows[chosen], self.positions[chosen], self.is_inside[chosen], self.start)


@dataclass(frozen=True, slots=True)
class Request:
    """What a step wants to know: at some columns of each row's block, the logits."""

    rows: Sequence[int]
    blocks: Sequence[Block]
    is_first: Sequence[bool]
    """Whether it is the row's first step in this block."""
    window: Window
    asked: Tensor
    """[n, k] int64, columns of the window."""

    def take(self, indices: list[int]) -> "Request":
        """Return the request of some of its rows."""
        chosen = torch.tensor(indices, device=self.asked.device)
        return Request(
            [self.rows[index] for index in indices],
            [self.blocks[index] for index in indices],
            [self.is_first[index] for index in indices],
            self.window.take(indices),
            self.asked if len(indices) == len(self.rows) else self.asked[chosen],
        )


Predict = Callable[[Request], Tensor]


class Denoiser:
    """Predict blocks by recomputing everything: the reference that caches are held against.

    tokens: [batch, total_length] int64, the sampler's own buffer, read at each call.
    lengths: of the rows; what lies behind is padding.  block_length: of a block-causal model, whose tokens see no later
    block; None for a bidirectional one.
    """

    def __init__(
        self, model: TransformerLM, tokens: Tensor, lengths: Sequence[int], block_length: int | None = None
    ) -> None:
        self.model, self.tokens, self.block_length = model, tokens, block_length
        self.lengths = torch.tensor(lengths, device=tokens.device)
        self.has_padding = min(lengths) < tokens.shape[1]
        self.cost = Cost()

    def predict(self, request: Request) -> Tensor:
        """Return the logits at the columns asked for: [n, k, vocab_size]."""
        return self._predict_whole(request, None)

    def last_visible(self, positions: Tensor, rows: Tensor) -> Tensor | None:
        """Return the last position that each token sees, [n, seq], or None if all see everything."""
        limits = (self.lengths[rows] - 1)[:, None].expand_as(positions)
        if self.block_length is not None:
            own_end = positions // self.block_length * self.block_length + self.block_length - 1
            return torch.minimum(own_end, limits)
        return limits if self.has_padding else None

    def _predict_whole(self, request: Request, cache: KVCache | None) -> Tensor:
        rows, seq = request.window.rows, self.tokens.shape[1]
        tokens = self.tokens[rows]
        logits = self.model(
            tokens,
            is_causal=False,
            selected=flat_indices(request.window.positions.gather(1, request.asked), seq),
            cache=cache,
            last_visible=self.last_visible(torch.arange(seq, device=tokens.device).expand_as(tokens), rows),
        )
        self.cost.count(*tokens.shape, request.asked.shape[1])
        return logits.view(*request.asked.shape, logits.shape[-1])

    def _predict_in_groups(self, request: Request, first: Predict, others: Predict) -> Tensor:
        """Predict rows at their first step in a block in one way, the others in another.

        What is done for a row depends on its own step, never on its neighbours'.
        """
        fresh = [index for index, is_first in enumerate(request.is_first) if is_first]
        kept = [index for index, is_first in enumerate(request.is_first) if not is_first]
        if not kept:
            return first(request)
        if not fresh:
            return others(request)
        logits = torch.cat((first(request.take(fresh)), others(request.take(kept))))
        return logits[torch.tensor(fresh + kept, device=logits.device).argsort()]

    def _predict_part(self, part: Window, asked: Tensor, cache: KVCache) -> Tensor:
        """Run the positions of a window against a cache.

        asked: [n, k] columns of the window.  Returns [n, k, vocab_size].
        """
        if self.model.shape.shift_logits:  # the position before the window predicts its first token
            before = (part.positions[:, :1] - 1).clamp(min=0)
            part = Window(part.rows, torch.cat((before, part.positions), dim=1), part.is_inside)
            asked = asked + 1
        count, width = part.positions.shape
        is_whole_batch = count == self.tokens.shape[0]
        logits = self.model(
            self.tokens[part.rows[:, None], part.positions],
            is_causal=False,
            selected=flat_indices(asked.clamp(max=width - 1), width),  # padding may lie beyond a row's last suffix
            positions=part.start if is_whole_batch and part.start is not None else part.positions,
            cache=cache if is_whole_batch else cache.of_rows(part.rows),
            last_visible=self.last_visible(part.positions, part.rows),
        )
        self.cost.count(count, width, asked.shape[1])
        return logits.view(*asked.shape, logits.shape[-1])


def flat_indices(columns: Tensor, width: int) -> Tensor:
    """Turn columns of each row, [n, k] int64, into indices of the flattened [n * width]."""
    return (torch.arange(len(columns), device=columns.device)[:, None] * width + columns).flatten()


class WindowDenoiser(Denoiser):
    """Recompute everything when a block begins, afterwards only a part ("prefix", "dual")."""

    def __init__(self, model: TransformerLM, tokens: Tensor, lengths: Sequence[int], *, keeps_suffix: bool) -> None:
        """keeps_suffix: keep the keys behind the block too, and recompute the block alone ("dual")."""
        super().__init__(model, tokens, lengths)
        self.keeps_suffix = keeps_suffix
        self.row_lengths = list(lengths)
        self.cache = model.new_cache(*tokens.shape)
        self.cache.reach(tokens.shape[1])

    def predict(self, request: Request) -> Tensor:
        """Return the logits at the columns asked for: [n, k, vocab_size]."""
        return self._predict_in_groups(request, self._refresh, self._predict_kept)

    def _refresh(self, request: Request) -> Tensor:
        is_whole_batch = len(request.rows) == self.tokens.shape[0]
        return self._predict_whole(request, self.cache if is_whole_batch else self.cache.of_rows(request.window.rows))

    def _predict_kept(self, request: Request) -> Tensor:
        part = request.window
        if not self.keeps_suffix:  # the block's columns come first in the suffix, so what is asked stays the same
            ranges = [
                (block.start, self.row_lengths[row]) for row, block in zip(request.rows, request.blocks, strict=True)
            ]
            part = Window.over(request.rows, ranges, self.tokens.device)
        return self._predict_part(part, request.asked, self.cache)


class BlockDenoiser(Denoiser):
    """Denoise a block against the final keys of everything before it ("block").

    A row's first pass over a block also takes along what became final since its last one: the given beginning, or the
    block before, whose keys were still those of masks. Nothing is written by a pass of its own.
    """

    def __init__(self, model: TransformerLM, tokens: Tensor, lengths: Sequence[int], block_length: int) -> None:
        super().__init__(model, tokens, lengths, block_length)
        self.cache = model.new_cache(*tokens.shape)
        self.num_final = [0] * len(lengths)
        """Of each row: positions from the left whose keys in the cache are final."""

    def predict(self, request: Request) -> Tensor:
        """Return the logits at the columns asked for: [n, k, vocab_size]."""
        self.cache.reach(max(block.end for block in request.blocks))
        widths = [block.end - self.num_final[row] for row, block in zip(request.rows, request.blocks, strict=True)]
        if max(widths) * len(widths) - sum(widths) <= MERGE_POSITIONS:
            return self._predict_open(request)
        return self._predict_in_groups(request, self._predict_open, self._predict_open)

    def _predict_open(self, request: Request) -> Tensor:
        """Run what is not final of each row, up to the end of its block."""
        starts = [self.num_final[row] for row in request.rows]
        ranges = [(start, block.end) for start, block in zip(starts, request.blocks, strict=True)]
        shifts = [block.start - start for start, block in zip(starts, request.blocks, strict=True)]
        for row, block in zip(request.rows, request.blocks, strict=True):
            self.num_final[row] = block.start
        asked = request.asked + torch.tensor(shifts, device=request.asked.device)[:, None]
        return self._predict_part(Window.over(request.rows, ranges, self.tokens.device), asked, self.cache)


def make_denoiser(
    cache: CacheName,
    model: TransformerLM,
    tokens: Tensor,
    lengths: Sequence[int],
    block_length: int | None,
) -> Denoiser:
    """Build the denoiser that a cache's name stands for.

    block_length: of a block-causal model, None for a bidirectional one.
    """
    if cache == "none":
        return Denoiser(model, tokens, lengths, block_length)
    if cache == "block":
        assert block_length is not None, "the exact block cache needs block-causal attention"
        return BlockDenoiser(model, tokens, lengths, block_length)
    assert block_length is None, "prefix and dual caches are made for bidirectional attention"
    return WindowDenoiser(model, tokens, lengths, keeps_suffix=cache == "dual")
