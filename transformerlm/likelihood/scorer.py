"""One interface to the likelihood of every objective.

    loaded = load_model("runs/latest")
    likelihood = open_likelihood(loaded)                                 # or: kind="diffusion" of a joint model
    scores = likelihood.score([Passage.document(row) for row in rows])   # list[DocumentScore], in order
    total = CorpusScore.of(scores)
    print(f"{'<= ' if total.is_bound else ''}{total.nats_per_token:.3f} +- {total.document_error:.3f} nats per token")

    options = [Passage.continuation(question, answer) for answer in answers]
    scores = likelihood.score(options, streams=[0] * len(options))       # the same random masks for every option

What is scored is the same for every objective: each token of a passage that is not given. Autoregression is exact. A
diffusion model is an upper bound by Monte-Carlo, of exactly counted masks unless the settings say otherwise. A
block-diffusion model of block length 1 is exact again.

A score depends on the seed, the passage and its stream, never on the passages beside it. Any callable
`model(tokens, is_causal=..., valid=...) -> logits` can be scored, such as an oracle, with the classes below.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.checkpoint import LoadedModel
from transformerlm.likelihood.monte_carlo import EvaluationDraw, combine_draws, draw_span_weights
from transformerlm.likelihood.score import DocumentScore, Passage
from transformerlm.objectives.masked_diffusion import forbid_token

LikelihoodKind = Literal["auto", "autoregressive", "diffusion"]


@dataclass(frozen=True, slots=True)
class LikelihoodSettings:
    """How to score."""

    draws: int = 8
    """Random masks per passage, of bounds."""
    seed: int = 0
    mask_draw: EvaluationDraw = "exact_count"
    """Which random masks: all estimate the same bound, "exact_count" and "complementary" with less variance."""
    batch_size: int = 32
    """Rows per pass."""


class Likelihood(Protocol):
    """A model, ready to score passages."""

    is_bound: bool
    """Whether its scores are upper bounds."""

    def score(self, passages: Sequence[Passage], streams: Sequence[int] | None = None) -> list[DocumentScore]:
        """Score passages, in their order.

        streams: passages with the same number share their random masks, position by position, counted from each
        passage's first scored token; by default every passage has its own. Exact likelihoods draw nothing.
        Raises ValueError for a passage longer than the model's context.
        """
        ...


def open_likelihood(
    loaded: LoadedModel, settings: LikelihoodSettings | None = None, kind: LikelihoodKind = "auto"
) -> Likelihood:
    """Return the likelihood of a checkpoint.

    kind: a joint model has both an exact autoregressive likelihood ("auto" takes it) and a diffusion bound.
    Raises ValueError if the weights were not trained for it.
    """
    settings = settings or LikelihoodSettings()
    kinds = {"autoregressive": ("autoregressive",), "masked_diffusion": ("diffusion",)}.get(loaded.objective)
    if kinds is None:
        raise ValueError(f"this version cannot score a checkpoint of objective {loaded.objective!r}")
    if kind not in ("auto", *kinds):
        raise ValueError(f"kind = {kind!r} does not fit objective {loaded.objective!r}; use {' or '.join(kinds)}")
    context_length = loaded.model.shape.context_length
    if (kinds[0] if kind == "auto" else kind) == "autoregressive":
        return AutoregressiveLikelihood(loaded.model, settings.batch_size, context_length)
    assert loaded.tokenizer.mask_id is not None, "a diffusion checkpoint's tokenizer has a mask token"
    return DiffusionLikelihood(loaded.model, loaded.tokenizer.mask_id, settings, context_length)


@dataclass(frozen=True, slots=True)
class AutoregressiveLikelihood:
    """The chain rule, exactly: each scored token given all tokens left of it."""

    model: nn.Module
    batch_size: int = 32
    context_length: int | None = None
    is_bound: bool = False

    @torch.no_grad()
    def score(self, passages: Sequence[Passage], streams: Sequence[int] | None = None) -> list[DocumentScore]:
        """Score passages, in their order; a passage's first token must be given, as nothing stands before it."""
        check_lengths(passages, self.context_length)
        if not all(passage.is_given[0] for passage in passages):
            raise ValueError("autoregression has nothing to predict a first token from; give it (the start token)")
        scores: list[DocumentScore | None] = [None] * len(passages)
        for indices in batches_by_length([len(passage.tokens) for passage in passages], self.batch_size):
            chosen = [passages[index] for index in indices]
            tokens, _ = pad_tokens([passage.tokens for passage in chosen], device_of(self.model))
            logits = self.model(tokens[:, :-1], is_causal=True)
            nats = token_nats(logits, tokens[:, 1:])
            is_likeliest = logits.argmax(-1).eq(tokens[:, 1:]).cpu()
            for row, (index, passage) in enumerate(zip(indices, chosen, strict=True)):
                is_scored = ~torch.tensor(passage.is_given[1:])
                length = len(is_scored)
                scores[index] = DocumentScore(
                    nats=float(nats[row, :length][is_scored].sum()),
                    num_tokens=passage.num_scored,
                    is_greedy=bool(is_likeliest[row, :length][is_scored].all()),
                )
        return scores


@dataclass(frozen=True, slots=True)
class DiffusionLikelihood:
    """The bound of a bidirectional model, by Monte-Carlo."""

    model: nn.Module
    mask_id: int
    settings: LikelihoodSettings = field(default_factory=LikelihoodSettings)
    context_length: int | None = None
    is_bound: bool = True

    @torch.no_grad()
    def score(self, passages: Sequence[Passage], streams: Sequence[int] | None = None) -> list[DocumentScore]:
        """Score passages, in their order."""
        check_lengths(passages, self.context_length)
        draws, mask_draw = self.settings.draws, self.settings.mask_draw
        spans = [[passage.num_scored] for passage in passages]
        weights = draw_span_weights(spans, draws, mask_draw, self.settings.seed, streams)
        estimates = torch.zeros((len(passages), draws), dtype=torch.float64)
        lengths = [len(passage.tokens) for passage in passages for _ in range(draws)]
        for rows in batches_by_length(lengths, self.settings.batch_size):
            drawn = [divmod(row, draws) for row in rows]
            tokens, valid = pad_tokens([passages[index].tokens for index, _ in drawn], device_of(self.model))
            noise = torch.zeros(tokens.shape, dtype=torch.float64)
            for row, (index, draw) in enumerate(drawn):
                hidden = (~torch.tensor(passages[index].is_given)).nonzero().flatten()
                noise[row, hidden] = weights[index][draw]
            is_masked = (noise > 0).to(tokens.device)
            logits = self.model(tokens.masked_fill(is_masked, self.mask_id), is_causal=False, valid=valid)
            nats = token_nats(forbid_token(logits, self.mask_id), tokens)
            sums = torch.where(noise > 0, nats * noise, 0.0).sum(dim=-1)
            estimates[[index for index, _ in drawn], [draw for _, draw in drawn]] = sums
        return [bound_score(each, passage, mask_draw) for each, passage in zip(estimates, passages, strict=True)]


def bound_score(estimates: Tensor, passage: Passage, mask_draw: EvaluationDraw) -> DocumentScore:
    """Turn the draws of a passage, [draws] nats, into its score."""
    nats, error = combine_draws(estimates, mask_draw)
    return DocumentScore(nats, passage.num_scored, error, is_bound=True)


def check_lengths(passages: Sequence[Passage], context_length: int | None) -> None:
    """Raise ValueError naming the first passage that the model cannot see whole."""
    for index, passage in enumerate(passages):
        if context_length is not None and len(passage.tokens) > context_length:
            raise ValueError(
                f"passage {index} has {len(passage.tokens)} tokens, more than the model's context_length = "
                f"{context_length}; cut it (Passage.windows)"
            )


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut indices into batches of similar lengths, the longest first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_tokens(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Lay rows out with padding on the right.

    Returns tokens [rows, longest] int64, and which of them are real, bool, or None if all are.
    """
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    valid = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return tokens.to(device), None if bool(valid.all()) else valid.to(device)


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log p of each target, [batch, seq] float64 on the CPU.

    logits: [batch, seq, vocab_size].  targets: [batch, seq] int64.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().cpu()


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's tokens belong; the CPU if it has no parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
