"""What is scored, and what comes out: the same two shapes for every objective.

passage    x_0 x_1 x_2 x_3 x_4        is_given  T F F F F      a document: only its first token is a condition
           x_0 x_1 x_2 x_3 x_4        is_given  T T T F F      a continuation of a context
           x_0 x_1 x_2 x_3 x_4        is_given  T F F T T      a gap (autoregression sees what is left of it only)
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens to score, some of which are conditions."""

    tokens: tuple[int, ...]
    is_given: tuple[bool, ...]
    """True where the token is a condition: it is seen and not scored."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.is_given):
            raise ValueError(f"{len(self.tokens)} tokens with {len(self.is_given)} flags; give one flag per token")
        if all(self.is_given):
            raise ValueError("a passage has no token to score: every position is given")

    @classmethod
    def document(cls, tokens: Sequence[int], num_given: int = 1) -> Self:
        """Score all tokens but the first num_given; by default those behind the start token."""
        return cls(tuple(tokens), tuple(index < num_given for index in range(len(tokens))))

    @classmethod
    def continuation(cls, context: Sequence[int], continuation: Sequence[int]) -> Self:
        """Score a continuation, given its context."""
        return cls.document((*context, *continuation), len(context))

    @classmethod
    def gaps(cls, tokens: Sequence[int], hidden: Collection[int]) -> Self:
        """Score the tokens at the hidden positions, given all others."""
        hidden = set(hidden)
        return cls(tuple(tokens), tuple(index not in hidden for index in range(len(tokens))))

    @classmethod
    def windows(cls, tokens: Sequence[int], length: int) -> list[Self]:
        """Cut a document into passages of at most `length` tokens that score each token but the first once.

        Each window sees one token of the one before it, as its condition.
        """
        starts = range(0, max(1, len(tokens) - 1), length - 1)
        return [cls.document(tokens[start : start + length]) for start in starts]

    @property
    def num_scored(self) -> int:
        """Tokens that are not given."""
        return len(self.is_given) - sum(self.is_given)


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """What a model says of one passage."""

    nats: float
    """-log p(scored tokens | given ones), or an estimate of an upper bound on it."""
    num_tokens: int
    """Scored tokens."""
    standard_error: float = 0.0
    """Of `nats`, from the spread of the random masks [nats]; 0 where nothing was drawn, infinite after one draw."""
    is_bound: bool = False
    """True for an upper bound (diffusion), to be printed with "<="; False for an exact value."""
    is_greedy: bool | None = None
    """Autoregression: whether every scored token was the likeliest one at its place."""


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """Scores of many documents, added up."""

    nats: float
    num_tokens: int
    num_documents: int
    draw_error: float
    """Standard error of `nats` that comes from random masks [nats]."""
    document_error: float
    """Standard error of nats_per_token over documents, masks included; infinite for a single document."""
    is_bound: bool

    @classmethod
    def of(cls, scores: Sequence[DocumentScore]) -> Self:
        """Add scores up; raises ValueError if there are none.

        nats_per_token is a ratio of two sums over documents: its error follows from the spread of
        nats_d - ratio * tokens_d (the delta method).
        """
        if not scores:
            raise ValueError("no document was scored; give at least one")
        nats, tokens, count = sum(s.nats for s in scores), sum(s.num_tokens for s in scores), len(scores)
        residuals = [score.nats - nats / tokens * score.num_tokens for score in scores]
        variance = sum(each**2 for each in residuals) / (count - 1) if count > 1 else math.inf
        return cls(
            nats=nats,
            num_tokens=tokens,
            num_documents=count,
            draw_error=math.sqrt(sum(score.standard_error**2 for score in scores)),
            document_error=math.sqrt(variance * count) / tokens,
            is_bound=any(score.is_bound for score in scores),
        )

    @property
    def nats_per_token(self) -> float:
        """Mean over all scored tokens."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(self.nats_per_token)

    def bits_per_byte(self, num_bytes: int) -> float:
        """Return bits per UTF-8 byte of the scored text (held_out.count_bytes)."""
        return self.nats / math.log(2) / num_bytes
