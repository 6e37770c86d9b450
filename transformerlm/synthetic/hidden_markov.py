"""A hidden Markov language: exact probabilities for whole sequences, beginnings, and any pattern of masked tokens.

A hidden state emits a symbol and moves on, both at once:

    arcs[x, s, r] = P(emit x and go to r | in s)

Every sum over hidden paths is a product of such matrices, one per position. A position whose symbol is not known
contributes the sum of all of them, so one forward and one backward sweep (Baum et al. 1970) give p(x_i | whatever is
known) for every i: what a perfect denoiser would answer. `oracle.py` makes a model of it.

The language that is trained on ("synthetic/hidden_markov") has 8 states and 26 symbols, the letters. It begins in state
0, and the state and the letter together fix the next state. Whoever has read everything from the beginning therefore
knows the state, and the entropy is a short sum; whoever sees a sequence with holes in it does not, and has to weigh
all paths. A document is 63 letters long: with the end-of-text token before it, a row of 64.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from typing import Literal, Self, get_args

import numpy as np

Split = Literal["train", "validation", "test"]

UNKNOWN = -1
"""Stands where a symbol is not known."""
MAX_BELIEFS = 20_000
SYMBOLS = "abcdefghijklmnopqrstuvwxyz"
DOCUMENT_LENGTH = 63
NUM_STATES, SYMBOLS_PER_STATE = 8, 6


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A source of sequences of symbols 0 .. num_symbols - 1. Probabilities are natural, logarithms natural, float64."""

    start: np.ndarray
    """[states] probability of beginning in each state."""
    arcs: np.ndarray
    """[symbols, states, states] probability of emitting x and going to r, from s."""

    def __post_init__(self) -> None:
        leaving = self.arcs.sum(axis=(0, 2))
        if not (np.allclose(leaving, 1) and np.isclose(self.start.sum(), 1) and self.arcs.min() >= 0):
            raise ValueError(f"arcs must leave every state with probability 1, not {leaving}; start must sum to 1")

    @classmethod
    def random(cls, num_states: int, num_symbols: int, rng: np.random.Generator) -> Self:
        """Draw a source in which everything is possible."""
        start = rng.dirichlet(np.ones(num_states))
        leaving = rng.dirichlet(np.full(num_symbols * num_states, 0.3), size=num_states)  # [s, x * r]
        return cls(start, leaving.reshape(num_states, num_symbols, num_states).transpose(1, 0, 2).copy())

    @property
    def num_symbols(self) -> int:
        """Size of the alphabet."""
        return self.arcs.shape[0]

    @cached_property
    def _steps(self) -> np.ndarray:
        """[symbols + 1, states, states]: the arcs, and behind them (so that UNKNOWN indexes it) their sum."""
        return np.concatenate([self.arcs, self.arcs.sum(axis=0, keepdims=True)])

    def sample(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a sequence: [length] int64."""
        symbols = np.empty(length, dtype=np.int64)
        state = rng.choice(len(self.start), p=self.start)
        for position in range(length):
            arc = rng.choice(self.arcs[:, state].size, p=self.arcs[:, state].ravel())
            symbols[position], state = divmod(int(arc), len(self.start))
        return symbols

    def log_probabilities(self, symbols: np.ndarray) -> np.ndarray:
        """Return log p of what is known of sequences, by the forward algorithm.

        symbols: [batch, length] of ids or UNKNOWN, which is summed over.  Returns [batch], -inf where impossible.
        """
        return self._forward(symbols)[1]

    def conditionals(self, symbols: np.ndarray) -> np.ndarray:
        """Return p(x_i | everything known but x_i itself) for every position, by the forward-backward algorithm.

        symbols: [batch, length] of ids or UNKNOWN.  Returns [batch, length, symbols]; NaN where what is known is
        impossible.
        """
        before = self._forward(symbols)[0][:, :-1]  # [batch, length, states]
        after = np.ones((symbols.shape[0], symbols.shape[1] + 1, len(self.start)))
        for position in reversed(range(symbols.shape[1])):
            message = np.einsum("bsr,br->bs", self._steps[symbols[:, position]], after[:, position + 1])
            after[:, position] = _normalized(message)
        joint = np.einsum("bis,xsr,bir->bix", before, self.arcs, after[:, 1:], optimize=True)
        return _normalized(joint)

    def predictions(self, symbols: np.ndarray) -> np.ndarray:
        """Return p(x_i | what is known before i) for every position and for the one behind the last.

        symbols: [batch, length] of ids or UNKNOWN.  Returns [batch, length + 1, symbols].
        """
        return np.einsum("bis,xsr->bix", self._forward(symbols)[0], self.arcs)

    def gap_posterior(self, symbols: np.ndarray, start: int, length: int) -> dict[tuple[int, ...], float]:
        """Return p(gap | everything else) for every possible content of a gap.

        symbols: [total] of ids; those at start .. start + length - 1 are not looked at.
        Raises ValueError if what surrounds the gap is impossible.
        """
        holed = symbols.copy()
        holed[start : start + length] = UNKNOWN
        before = self._forward(holed[None, :start])[0][0, -1]
        after = np.ones(len(self.start))
        for symbol in reversed(symbols[start + length :]):
            after = _normalized(self.arcs[symbol] @ after)
        messages = {(): before}
        for _ in range(length):
            messages = {
                (*gap, symbol): reached
                for gap, message in messages.items()
                for symbol in np.flatnonzero(np.einsum("s,xsr->x", message, self.arcs)).tolist()
                if (reached := message @ self.arcs[symbol]).any()
            }
        weights = {gap: float(message @ after) for gap, message in messages.items()}
        total = sum(weights.values())
        if not total > 0:
            raise ValueError("what surrounds the gap is impossible for this source: its symbols need not be its own")
        return {gap: weight / total for gap, weight in weights.items() if weight > 0}

    def _forward(self, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return P(state before each position | what is known before it) [batch, length + 1, states], log p [batch]."""
        states = np.empty((symbols.shape[0], symbols.shape[1] + 1, len(self.start)))
        states[:, 0] = self.start
        log_p = np.zeros(symbols.shape[0])
        for position in range(symbols.shape[1]):
            message = np.einsum("bs,bsr->br", states[:, position], self._steps[symbols[:, position]])
            total = message.sum(axis=-1)  # zero where impossible, NaN behind that
            log_p += np.log(total, out=np.full_like(total, -np.inf), where=total > 0)
            states[:, position + 1] = _normalized(message)
        return states, log_p

    def entropy_nats(self, length: int) -> float:
        """Return the entropy of a sequence of `length` symbols, exact up to rounding.

        By the chain rule it is the mean entropy of the next symbol over all beliefs about the state that a reader may
        arrive at; equal beliefs are counted together. Where symbol and state fix the next state there are no more
        beliefs than states. Raises ValueError if there are too many to count: then the mean of -log_probabilities over
        samples estimates it.
        """
        beliefs, shares, entropy = self.start[None], np.ones(1), 0.0
        for position in range(length):
            if len(beliefs) > MAX_BELIEFS:
                raise ValueError(
                    f"this source leads to more than {MAX_BELIEFS} beliefs about its state after {position} symbols; "
                    "ask for shorter sequences, or average -log_probabilities over samples"
                )
            joint = np.einsum("ns,xsr->nxr", beliefs, self.arcs)
            next_symbol = joint.sum(axis=-1)  # [n, symbols]
            logs = np.log(next_symbol, out=np.zeros_like(next_symbol), where=next_symbol > 0)
            entropy -= float((shares[:, None] * next_symbol * logs).sum())
            is_possible = next_symbol > 0
            reached = joint[is_possible] / next_symbol[is_possible][:, None]
            weights = (shares[:, None] * next_symbol)[is_possible]
            _, first, place = np.unique(reached.round(12), axis=0, return_index=True, return_inverse=True)
            beliefs, shares = reached[first], np.bincount(place.ravel(), weights)
        return entropy

    def entropy_rate_nats(self) -> float:
        """Return the entropy per symbol of an endless sequence, exact.

        Raises ValueError unless symbol and state fix the next state: else there is no closed form.
        """
        if (np.count_nonzero(self.arcs, axis=-1) > 1).any():
            raise ValueError("an entropy rate in closed form needs a source whose symbol and state fix the next state")
        moves = self.arcs.sum(axis=0)
        size = len(self.start)
        equations = np.concatenate([moves.T - np.eye(size), np.ones((1, size))])
        share = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
        emit = self.arcs.sum(axis=-1)  # [symbols, states]
        logs = np.log(emit, out=np.zeros_like(emit), where=emit > 0)
        return -float((share * emit * logs).sum())


def _normalized(values: np.ndarray) -> np.ndarray:
    """Divide by the sum over the last axis; NaN where that is zero."""
    with np.errstate(invalid="ignore"):
        return values / values.sum(axis=-1, keepdims=True)


@cache
def letters_source() -> HiddenMarkov:
    """Return the source of "synthetic/hidden_markov", the same on every machine."""
    rng = np.random.Generator(np.random.PCG64(26))
    arcs = np.zeros((len(SYMBOLS), NUM_STATES, NUM_STATES))
    for state in range(NUM_STATES):
        symbols = rng.permutation(len(SYMBOLS))[:SYMBOLS_PER_STATE]
        following = rng.permutation(NUM_STATES)[:SYMBOLS_PER_STATE]
        weights = 1.0 / np.arange(1, SYMBOLS_PER_STATE + 1) ** (0.5 + 2 * state / NUM_STATES)  # some states say more
        arcs[symbols, state, following] = weights / weights.sum()
    return HiddenMarkov(np.eye(NUM_STATES)[0], arcs)


def document(split: Split, index: int, seed: int = 0) -> str:
    """Return document number `index` of a split, the same on every machine; there is no last one.

    Raises ValueError on an unknown split or a negative index.
    """
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(get_args(Split))}")
    if index < 0:
        raise ValueError(f"document index {index} is negative: count from 0")
    digest = blake2b(f"hidden_markov/{seed}/{split}/{index}".encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    return "".join(SYMBOLS[symbol] for symbol in letters_source().sample(DOCUMENT_LENGTH, rng))


def read_symbols(text: str) -> np.ndarray | None:
    """Return the symbols of a text: [length] int64; None if it holds anything but letters of the alphabet."""
    symbols = np.array([SYMBOLS.find(letter) for letter in text], dtype=np.int64)
    return None if (symbols < 0).any() else symbols


def log_probability(text: str) -> float:
    """Return the exact natural logarithm of a document's probability; -inf for what is none."""
    return prefix_log_probability(text) if len(text) == DOCUMENT_LENGTH else -math.inf


def prefix_log_probability(text: str) -> float:
    """Return the natural logarithm of the probability that a document starts with `text`; -inf if none does."""
    symbols = read_symbols(text)
    if symbols is None or len(text) > DOCUMENT_LENGTH:
        return -math.inf
    return float(letters_source().log_probabilities(symbols[None])[0])


@cache
def entropy_nats() -> float:
    """Return the entropy of a document, exact: no model can do better on average."""
    return letters_source().entropy_nats(DOCUMENT_LENGTH)


def expected_bytes() -> float:
    """Return the length of a document in UTF-8 bytes."""
    return float(DOCUMENT_LENGTH)
