"""What a decoder gives back, whichever it is."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Cost:
    """Work done so far, counted as it is done."""

    passes: int = 0
    """Calls of the network, whatever their size."""
    row_passes: int = 0
    """The same, once for each row that took part: divided by the rows, the number of function evaluations of a text."""
    token_forwards: int = 0
    """Positions that went through the network, over all rows and passes, padding included."""

    predictions: int = 0
    """Positions of them that were projected onto the vocabulary."""

    def count(self, rows: int, positions: int, predictions: int) -> None:
        """Count one pass over `rows` rows of `positions` positions, `predictions` of them through the head."""
        self.passes += 1
        self.row_passes += rows
        self.token_forwards += rows * positions
        self.predictions += rows * predictions


@dataclass(slots=True)
class Decoded:
    """Finished rows."""

    rows: list[list[int]]
    """Given tokens included. OPEN can be left only where a row ended early: behind an end-of-text or a stop."""
    log_probs: list[list[float]]
    """log p of each token when it was chosen, before temperature and filters [nats]; 0 where it was given."""
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Change:
    """A position that got a token, or lost it."""

    row: int
    step: int
    """Of this row, from 0."""
    position: int
    token: int
    """The mask token where it was masked again."""
    log_prob: float = 0.0
    """log p of the token when it was chosen [nats]."""
    time: float | None = None
    """Of first-hitting sampling: the noise level at which the position was unmasked."""
