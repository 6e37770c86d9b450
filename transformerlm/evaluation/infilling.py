"""Gaps with an exactly known answer: how well does a model fill them, beside the best that can be done?

The embedded languages give the exact posterior p(gap | everything around it) over all possible contents of a gap. Two
numbers are held against it: the nats a model spends on what really stood there, and how often its own first choice is
just that. No filling can be right more often, on average, than the likeliest one is likely.

A diffusion model sees both sides; its nats are a bound. Autoregression sees what is left of the gap only, which is its
fair baseline, not its fault.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np

from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.likelihood.score import CorpusScore, Passage
from transformerlm.likelihood.scorer import Likelihood
from transformerlm.synthetic import hidden_markov, stories
from transformerlm.synthetic.filling import fillings
from transformerlm.synthetic.story_grammar import STORY_GRAMMAR
from transformerlm.tokenizer import Tokenizer

GapSource = Literal["synthetic/stories", "synthetic/hidden_markov"]
BATCH_SIZE = 32
MAX_TRIES = 50


@dataclass(frozen=True, slots=True)
class Gap:
    """A document with a gap in it."""

    tokens: tuple[int, ...]
    """The whole document as it was, behind an end-of-text token."""
    start: int
    length: int
    posterior: dict[tuple[int, ...], float]
    """Exact probability of everything that could stand there, as tokens."""

    @property
    def truth(self) -> tuple[int, ...]:
        """What stood there."""
        return self.tokens[self.start : self.start + self.length]


@dataclass(frozen=True, slots=True)
class InfillingResult:
    """What became of the gaps."""

    num_gaps: int
    nats_per_token: float
    true_nats_per_token: float
    """Of the exact posterior."""
    excess_error: float
    """Standard error over gaps of the difference of the two."""
    is_bound: bool
    exact_match: float
    """Share of gaps that were filled with what stood there, taking the likeliest token at each step."""
    best_match: float
    """The share that the exact posterior expects of always choosing its likeliest filling."""

    @property
    def match_error(self) -> float:
        """Standard error of the exact match over gaps."""
        return (self.exact_match * (1 - self.exact_match) / self.num_gaps) ** 0.5


def make_gaps(
    source: GapSource, tokenizer: Tokenizer, length: int, num_gaps: int, context_length: int, seed: int = 0
) -> list[Gap]:
    """Make gaps of `length` tokens in held-out documents that fit the context, the same on every machine.

    Raises ValueError if the tokenizer does not fit the language.
    """
    make = _markov_gaps if source == "synthetic/hidden_markov" else _story_gaps
    indices = range(MAX_TRIES * num_gaps)
    gaps = list(islice(make(tokenizer, length, context_length, random.Random(seed), indices), num_gaps))
    if len(gaps) < num_gaps:
        raise ValueError(
            f"infilling: too few documents of {source} fit into the {context_length} tokens of the model; use "
            "checkpoints with a longer context, or leave [infilling] out"
        )
    return gaps


def _markov_gaps(
    tokenizer: Tokenizer, length: int, context_length: int, rng: random.Random, indices: Iterable[int]
) -> Iterator[Gap]:
    ids = [tokenizer.encode(letter) for letter in hidden_markov.SYMBOLS]
    text = hidden_markov.document("test", 0)
    if len(tokenizer.encode(text)) != len(text):
        raise ValueError(
            'infilling.source = "synthetic/hidden_markov" needs a tokenizer with a token for each letter and none for '
            "several; use the one in config/resources/tokenizers/letters"
        )
    end = tokenizer.end_of_text_id
    for index in indices if len(text) < context_length else ():
        symbols = hidden_markov.read_symbols(hidden_markov.document("test", index))
        assert symbols is not None, "documents are made of symbols"
        start = rng.randrange(len(symbols) - length + 1)
        posterior = hidden_markov.letters_source().gap_posterior(symbols, start, length)
        tokens = (end, *(ids[symbol][0] for symbol in symbols))  # the end needs no telling: the length is fixed
        yield Gap(tokens, start + 1, length, {tuple(ids[each][0] for each in gap): p for gap, p in posterior.items()})


def _story_gaps(
    tokenizer: Tokenizer, length: int, context_length: int, rng: random.Random, indices: Iterable[int]
) -> Iterator[Gap]:
    """Open whole words: what is left of the gap, in it and right of it then has the same tokens in every filling."""
    end = tokenizer.end_of_text_id
    for index in indices:
        tokens = tokenizer.encode(stories.story("test", index))
        starts = [place for place in range(2, len(tokens) - length) if _is_word(tokenizer, tokens, place, length)]
        if not starts or len(tokens) + 2 > context_length:
            continue
        start = rng.choice(starts)  # a token is at most one word: a gap of n tokens has at most n blanks
        before, behind = tokenizer.decode(tokens[:start]), tokenizer.decode(tokens[start + length :])
        fitting = {}
        for filling, probability in fillings(STORY_GRAMMAR, before, behind, max_blanks=length).items():
            filled = tokenizer.encode(before + filling + behind)
            if len(filled) == len(tokens) and filled[:start] + filled[start + length :] == (
                tokens[:start] + tokens[start + length :]
            ):
                fitting[tuple(filled[start : start + length])] = probability
        total = sum(fitting.values())
        posterior = {gap: probability / total for gap, probability in fitting.items()}
        if len(posterior) > 1:  # what can be nothing else is no question
            yield Gap((end, *tokens, end), start + 1, length, posterior)


def _is_word(tokenizer: Tokenizer, tokens: Sequence[int], start: int, length: int) -> bool:
    """Tell whether tokens start .. start + length - 1 are whole words."""
    gap, following = tokenizer.decode(tokens[start : start + length]), tokenizer.decode([tokens[start + length]])
    return gap[0] == " " and gap[-1].isalpha() and not following[0].isalnum()


def score_gaps(
    likelihood: Likelihood, predictor: Predictor, gaps: Sequence[Gap], settings: GenerationSettings
) -> InfillingResult:
    """Score what stood in each gap, and fill each by taking the likeliest tokens."""
    passages = [Passage.gaps(gap.tokens, range(gap.start, gap.start + gap.length)) for gap in gaps]
    scores = likelihood.score(passages)
    true_nats = np.array([-math.log(gap.posterior[gap.truth]) for gap in gaps])
    excess = np.array([score.nats for score in scores]) - true_nats
    is_match = fills_exactly(predictor, gaps, settings)
    total, length = CorpusScore.of(scores), gaps[0].length
    return InfillingResult(
        num_gaps=len(gaps),
        nats_per_token=total.nats_per_token,
        true_nats_per_token=float(true_nats.mean()) / length,
        excess_error=float(excess.std(ddof=1)) / math.sqrt(len(gaps)) / length if len(gaps) > 1 else math.inf,
        is_bound=total.is_bound,
        exact_match=float(np.mean(is_match)),
        best_match=float(np.mean([max(gap.posterior.values()) for gap in gaps])),
    )


def fills_exactly(predictor: Predictor, gaps: Sequence[Gap], settings: GenerationSettings) -> list[bool]:
    """Fill every gap, one token after the other at temperature 0, and tell where the document is whole again."""
    greedy = replace(settings, sampling=SamplingSettings(temperature=0.0), steps=None)
    matches = []
    for first in range(0, len(gaps), BATCH_SIZE):
        batch = gaps[first : first + BATCH_SIZE]
        canvases = []
        for gap in batch:
            tokens = np.array(gap.tokens, np.int64)
            tokens[gap.start : gap.start + gap.length] = OPEN
            canvases.append(Canvas.with_holes(tokens))
        for gap, generation in zip(batch, predictor.generate(canvases, greedy), strict=True):
            matches.append(generation.completion == predictor.tokenizer.decode(gap.tokens[gap.start :]))
    return matches
