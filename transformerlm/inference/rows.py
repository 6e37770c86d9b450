"""Where each row of a diffusion sampler stands in its plan; kept on the host."""

from dataclasses import dataclass

import torch

from transformerlm.inference.plan import Block


@dataclass(slots=True)
class Row:
    """Where a row stands."""

    index: int
    plan: list[Block]
    generator: torch.Generator
    block_index: int = 0
    step: int = 0
    """Within the block."""
    steps_done: int = 0
    num_open: int = 0
    """Masks left in the block."""
    time: float = 1.0
    """Of first-hitting sampling, within the block."""
    is_ended: bool = False

    def __post_init__(self) -> None:
        if self.plan:
            self.num_open = self.plan[0].num_open

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_ended or self.block_index >= len(self.plan)

    @property
    def block(self) -> Block:
        """The block it works on."""
        return self.plan[self.block_index]

    @property
    def quota(self) -> int:
        """Tokens to commit at this step, if the policy plans."""
        return self.block.quota(self.step)

    def enter_next_block(self) -> None:
        """Go on to the next block."""
        self.block_index, self.step, self.time = self.block_index + 1, 0, 1.0
        if not self.is_done:
            self.num_open = self.block.num_open
