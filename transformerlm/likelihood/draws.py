"""The passes that a Monte-Carlo bound takes: every passage with each of its random masks, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from transformerlm.likelihood.monte_carlo import EvaluationDraw, combine_draws, draw_span_weights
from transformerlm.likelihood.score import DocumentScore, Passage


class DrawSettings(Protocol):
    """What of the settings says how to draw."""

    draws: int
    seed: int
    mask_draw: EvaluationDraw


@dataclass(frozen=True, slots=True)
class DrawBatch:
    """Some (passage, draw) pairs, laid out as rows."""

    where: tuple[Tensor, Tensor]
    """[rows] int64 each: the passage and the draw of every row."""
    tokens: Tensor
    """[rows, seq] int64, padded on the right."""
    valid: Tensor | None
    """[rows, seq] bool; None without padding."""
    weights: Tensor
    """[rows, seq] float64: of masked positions, else 0."""

    def to(self, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return tokens, valid and weights on the model's device."""
        valid = None if self.valid is None else self.valid.to(device)
        return self.tokens.to(device), valid, self.weights.to(device)


@dataclass(frozen=True, slots=True)
class Draws:
    """The masks of all passages, and the estimates that come in."""

    passages: Sequence[Passage]
    weights: Sequence[Tensor]
    """[draws, hidden positions] float64 of each passage."""
    estimates: Tensor
    """[passages, draws] float64 nats."""
    mask_draw: EvaluationDraw

    @classmethod
    def of(
        cls,
        passages: Sequence[Passage],
        spans: Sequence[Sequence[int]],
        settings: DrawSettings,
        streams: Sequence[int] | None,
    ) -> Self:
        """Draw all masks; spans and streams as in draw_span_weights."""
        weights = draw_span_weights(spans, settings.draws, settings.mask_draw, settings.seed, streams)
        estimates = torch.zeros((len(passages), settings.draws), dtype=torch.float64)
        return cls(passages, weights, estimates, settings.mask_draw)

    def batches(self, batch_size: int) -> Iterator[DrawBatch]:
        """Yield all rows in batches of similar length."""
        draws = self.estimates.shape[1]
        lengths = [len(passage.tokens) for passage in self.passages for _ in range(draws)]
        for rows in batches_by_length(lengths, batch_size):
            pairs = [divmod(row, draws) for row in rows]
            tokens, valid = pad_tokens([self.passages[index].tokens for index, _ in pairs])
            weights = torch.zeros(tokens.shape, dtype=torch.float64)
            for row, (index, draw) in enumerate(pairs):
                hidden = (~torch.tensor(self.passages[index].is_given)).nonzero().flatten()
                weights[row, hidden] = self.weights[index][draw]
            indices, numbers = torch.tensor(pairs).unbind(1)
            yield DrawBatch((indices, numbers), tokens, valid, weights)

    def add(self, batch: DrawBatch, nats: Tensor) -> None:
        """Take in what a pass found: nats [rows, seq] float64 on the CPU."""
        self.estimates[batch.where] = torch.where(batch.weights > 0, nats * batch.weights, 0.0).sum(dim=-1)

    def scores(self) -> list[DocumentScore]:
        """Return the bound of each passage."""
        scores = []
        for estimates, passage in zip(self.estimates, self.passages, strict=True):
            nats, error = combine_draws(estimates, self.mask_draw)
            scores.append(DocumentScore(nats, passage.num_scored, error, is_bound=True))
        return scores


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut indices into batches of similar lengths, the longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_tokens(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Lay rows out with padding on the right.

    Returns tokens [rows, longest] int64, and which of them are real, bool, or None if all are.
    """
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    valid = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return tokens, None if bool(valid.all()) else valid
