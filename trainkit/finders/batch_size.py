"""Find the largest micro-batch that fits into memory, and the accumulation that keeps the global batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainkit.finders.memory import Trial


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to cut the rows of one process and step."""

    rows: int
    """Rows per micro-batch."""
    accumulation: int
    """Micro-batches per step."""
    trial: Trial


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """What was tried, smallest first."""

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """Return the largest that fits, None if not even a single row does."""
        return next((each for each in reversed(self.candidates) if each.trial.fits), None)


def find_batch_size(rows_per_step: int, first: int, attempt: Callable[[int, int], Trial]) -> BatchSizes:
    """Try micro-batches that cut `rows_per_step` evenly, so that the global batch stays what it is.

    Doubles from about `first` rows until one does not fit, then halves the gap. What needs more memory is never tried
    once something smaller has failed.
    attempt: given rows and accumulation, runs a few steps and says whether they fitted.
    """
    sizes = [rows for rows in range(1, rows_per_step + 1) if rows_per_step % rows == 0]
    tried: dict[int, Trial] = {}

    def fits(index: int) -> bool:
        rows = sizes[index]
        if rows not in tried:
            tried[rows] = attempt(rows, rows_per_step // rows)
        return tried[rows].fits

    low, high = -1, len(sizes)  # the largest index known to fit, the smallest known not to
    for index in _doubling(sizes, first):
        if not fits(index):
            high = index
            break
        low = index
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return BatchSizes(tuple(Candidate(rows, rows_per_step // rows, tried[rows]) for rows in sorted(tried)))


def _doubling(sizes: list[int], first: int) -> Iterator[int]:
    """Yield indices of sizes from the smallest that is at least `first`, each about twice the one before."""
    index = next((i for i, rows in enumerate(sizes) if rows >= first), len(sizes) - 1)
    while True:
        yield index
        if index == len(sizes) - 1:
            return
        index = max(i for i, rows in enumerate(sizes) if i == index + 1 or sizes[index] < rows <= 2 * sizes[index])
