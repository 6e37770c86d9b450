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
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.request import abilities_of
from transformerlm.likelihood.draws import Draws, batches_by_length, pad_tokens
from transformerlm.likelihood.monte_carlo import EvaluationDraw
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
    kinds = kinds_of(loaded.objective)
    if kind not in ("auto", *kinds):
        raise ValueError(f"kind = {kind!r} does not fit objective {loaded.objective!r}; use {' or '.join(kinds)}")
    model, mask_id, context_length = loaded.model, loaded.tokenizer.mask_id, loaded.model.shape.context_length
    if (kinds[0] if kind == "auto" else kind) == "autoregressive":
        return AutoregressiveLikelihood(model, settings.batch_size, context_length)
    assert mask_id is not None, "a diffusion checkpoint's tokenizer has a mask token"
    if model.shape.block_length is None:
        return DiffusionLikelihood(model, mask_id, settings, context_length)
    return BlockDiffusionLikelihood(model, mask_id, model.shape.block_length, settings, context_length)


def kinds_of(objective: str) -> tuple[LikelihoodKind, ...]:
    """Return which likelihoods a checkpoint's objective has, the one that "auto" takes first.

    Raises ValueError if the objective is none of ours.
    """
    modes = abilities_of(objective).modes
    return tuple(kind for kind in ("autoregressive", "diffusion") if kind in modes)


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
            tokens = pad_tokens([passage.tokens for passage in chosen])[0].to(device_of(self.model))
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
        spans = [[passage.num_scored] for passage in passages]
        drawn = Draws.of(passages, spans, self.settings, streams)
        for batch in drawn.batches(self.settings.batch_size):
            tokens, valid, weights = batch.to(device_of(self.model))
            logits = self.model(tokens.masked_fill(weights > 0, self.mask_id), is_causal=False, valid=valid)
            drawn.add(batch, token_nats(forbid_token(logits, self.mask_id), tokens))
        return drawn.scores()


@dataclass(frozen=True, slots=True)
class BlockDiffusionLikelihood:
    """The bound of a block-causal model, all blocks of a passage at once; exact if a block is one token."""

    model: nn.Module
    mask_id: int
    block_length: int
    settings: LikelihoodSettings = field(default_factory=LikelihoodSettings)
    context_length: int | None = None

    @property
    def is_bound(self) -> bool:
        """Whether scores are upper bounds."""
        return self.block_length > 1

    @torch.no_grad()
    def score(self, passages: Sequence[Passage], streams: Sequence[int] | None = None) -> list[DocumentScore]:
        """Score passages, in their order; blocks count from a passage's first token."""
        check_lengths(passages, self.context_length)
        spans = [hidden_per_block(passage, self.block_length) for passage in passages]
        settings = self.settings if self.is_bound else replace(self.settings, draws=1, mask_draw="exact_count")
        drawn = Draws.of(passages, spans, settings, streams)
        for batch in drawn.batches(settings.batch_size):
            tokens, valid, weights = batch.to(device_of(self.model))
            streams_of_tokens = torch.cat((tokens.masked_fill(weights > 0, self.mask_id), tokens), dim=1)
            logits = self.model(streams_of_tokens, is_causal=False, valid=valid, block_length=self.block_length)
            drawn.add(batch, token_nats(forbid_token(logits, self.mask_id), tokens))
        if self.is_bound:
            return drawn.scores()
        return [replace(score, standard_error=0.0, is_bound=False) for score in drawn.scores()]


def hidden_per_block(passage: Passage, block_length: int) -> list[int]:
    """Count the scored positions of each block that has any."""
    blocks = range(0, len(passage.tokens), block_length)
    counts = [passage.is_given[start : start + block_length].count(False) for start in blocks]
    return [count for count in counts if count]


def check_lengths(passages: Sequence[Passage], context_length: int | None) -> None:
    """Raise ValueError naming the first passage that the model cannot see whole."""
    for index, passage in enumerate(passages):
        if context_length is not None and len(passage.tokens) > context_length:
            raise ValueError(
                f"passage {index} has {len(passage.tokens)} tokens, more than the model's context_length = "
                f"{context_length}; cut it (Passage.windows)"
            )


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
