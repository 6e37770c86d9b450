"""What a diffusion sampler sets out to do: its policy, and which positions it works on, block by block.

    canvas   a b M M M M M M c M        a, b, c given; M open; block_length 4
    blocks       [M M M M][M M c M]     left to right; each begins at the first open position behind the last one
    aligned  [a b M M][M M M M][c M]    at multiples of block_length, as a block-diffusion model was trained

Planned on the host from the canvas alone, without torch: what cannot work is refused before any weights are loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

PolicyName = Literal[
    "random",
    "low_confidence",
    "margin",
    "entropy",
    "threshold",
    "factor",
    "entropy_bound",
    "first_hitting",
    "remdm",
]
QUOTA_POLICIES: tuple[PolicyName, ...] = ("random", "low_confidence", "margin", "entropy")
ADAPTIVE_POLICIES: tuple[PolicyName, ...] = ("threshold", "factor", "entropy_bound")


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to choose, and the numbers that some ways need."""

    name: PolicyName = "low_confidence"
    threshold: float = 0.9
    """Of "threshold": commit what has at least this probability."""
    factor: float = 1.0
    """Of "factor": commit rank r if its probability is at least 1 - factor / (r + 1)."""
    entropy_bound: float = 0.1
    """Of "entropy_bound": commit the largest set whose summed entropy, less its maximum, stays within it [nats]."""
    remask_share: float = 0.1
    """Of "remdm": chance of a committed token to be masked again, as far as the schedule allows."""
    is_end_last: bool = False
    """Commit an end-of-text token only when nothing else is left in the block."""

    @property
    def is_planned(self) -> bool:
        """Whether it is known beforehand how many tokens each step commits."""
        return self.name in QUOTA_POLICIES or self.name == "first_hitting"

    @property
    def uses_steps(self) -> bool:
        """Whether the number of steps is the caller's choice; otherwise it follows from the tokens."""
        return self.name in QUOTA_POLICIES or self.name == "remdm"


@dataclass(frozen=True, slots=True)
class Block:
    """Positions of one row that are denoised together."""

    start: int
    end: int
    """Exclusive."""
    num_open: int
    steps: int
    """Steps granted to this block."""

    def quota(self, step: int) -> int:
        """Return the tokens to commit at a step; as in LLaDA's reference the first steps take the remainder."""
        quota, remainder = divmod(self.num_open, self.steps)
        return quota + (step < remainder) if step < self.steps else 0


def plan_blocks(
    is_open: Sequence[bool], block_length: int, steps: int | None = None, is_aligned: bool = False
) -> list[Block]:
    """Cut a canvas into blocks that have open positions, and divide the steps over them.

    is_open: True where a token is to be found.  steps: passes for the whole row; None for one per open position.
    Remainders of the division go to the first blocks. The last block may be shorter than the others.
    Raises ValueError if there are fewer steps than blocks.
    """
    ranges = _cut(is_open, block_length, is_aligned)
    if not ranges:
        return []
    counts = [sum(is_open[start:end]) for start, end in ranges]
    if steps is None:
        shares = counts
    elif steps < len(ranges):
        raise ValueError(
            f"steps = {steps} is fewer than the {len(ranges)} blocks of {block_length} that {sum(counts)} tokens "
            "make; raise steps or block_length"
        )
    else:
        shares = [steps // len(ranges) + (index < steps % len(ranges)) for index in range(len(ranges))]
    return [Block(start, end, count, share) for (start, end), count, share in zip(ranges, counts, shares, strict=True)]


def _cut(is_open: Sequence[bool], block_length: int, is_aligned: bool) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for position, is_here_open in enumerate(is_open):
        if is_here_open and (not ranges or position >= ranges[-1][1]):
            start = position // block_length * block_length if is_aligned else position
            ranges.append((start, min(start + block_length, len(is_open))))
    assert all(before[1] <= after[0] for before, after in pairwise(ranges)), "blocks do not overlap"
    return ranges
