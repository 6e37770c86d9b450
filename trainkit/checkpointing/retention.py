"""Choose which checkpoints of a run are kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """Say which checkpoints survive: each rule keeps its own, and what no rule keeps is deleted."""

    keep_last: int = 3
    """The newest checkpoints; 0 keeps all there are."""
    keep_best: int = 0
    """Those with the lowest validation loss, of the ones saved right after an evaluation."""
    keep_every: int = 0
    """All whose step is a multiple of this; 0 is none."""

    def __post_init__(self) -> None:
        """Raise ValueError for a negative number."""
        for name, value in (
            ("keep_last", self.keep_last),
            ("keep_best", self.keep_best),
            ("keep_every", self.keep_every),
        ):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")

    def survivors(self, scores: Mapping[int, float | None], newest: int) -> set[int]:
        """Return the steps to keep; `scores` maps all that exist to their validation loss, if it is known.

        `newest` is what was saved last: after resuming from an earlier step it need not be the highest.
        """
        if self.keep_last == 0:
            return set(scores)
        kept = {newest, *sorted(scores)[-self.keep_last :], *rank_by_score(scores)[: self.keep_best]}
        if self.keep_every:
            kept |= {step for step in scores if step % self.keep_every == 0}
        return kept


def rank_by_score(scores: Mapping[int, float | None]) -> list[int]:
    """Return the steps that have a finite score, lowest first; of equal scores the later step first."""
    known = [(score, -step) for step, score in scores.items() if score is not None and math.isfinite(score)]
    return [-step for _, step in sorted(known)]
