"""The whole contract between trainkit and what it trains, on one page.

A *source* yields batches, an *objective* turns a model and a batch into a sum and what that sum is to be divided by.
trainkit divides by the weight of the whole step, summed over every rank and micro-batch, so the gradient does not
depend on how a global batch was cut. It never looks inside a batch beyond the number of its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""Named tensors whose first dimension counts the rows of one micro-batch, the same number in every tensor."""


Metric = Tensor | tuple[Tensor, Tensor]
"""[] a sum to be divided by the weight, or a pair of [] whose second is its own divisor (null where that is 0)."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Carry what one micro-batch adds to the step: everything is a sum, nothing is divided yet."""

    loss_sum: Tensor
    """[] summed over the micro-batch, differentiable. It must reach every trained parameter, also when it is zero:
    ranks exchange gradients parameter by parameter, and a rank that skips one would leave the others waiting."""
    weight: Tensor
    """[] what to divide by: target tokens, samples. May be zero on one rank, not on all of them."""
    metrics: Mapping[str, Metric]
    """name -> further sums, reported divided. The same names in every step and on every rank."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """Say where a micro-batch stands in its step, so that noise need not depend on how the global batch is cut.

    An objective draws noise for all `total_rows` rows of the step and keeps rows `first_row : first_row + rows`.
    """

    rng: torch.Generator
    """On the model's device, seeded from (seed, step): identical on every rank and in every micro-batch of a step."""
    first_row: int
    """Index of this micro-batch's first row in the global batch of the step, ordered by (micro-batch, rank)."""
    total_rows: int
    """Rows in the global batch of the step: rows per micro-batch * ranks * micro-batches."""
    step: int = 0
    """The optimizer step that is being computed, from 1; 0 in an evaluation, which is the same after every step."""


class Objective(Protocol):
    """Compute one micro-batch's sums."""

    def __call__(self, model: nn.Module, batch: Batch, context: StepContext) -> StepOutput:
        """Run the model as `model(...)` (so that gradients are exchanged) and return the sums of the micro-batch."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """Hold state that a checkpoint saves and restores."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain Python values and tensors (it is read back without running any code)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        ...


class BatchSource(Stateful, Protocol):
    """Yield the micro-batches of one rank; the state is the position from which the next batch follows."""

    def __next__(self) -> Batch:
        """Return the next micro-batch on the CPU; raise StopIteration when there is none."""
        ...

    def origin(self) -> str:
        """Say in human words where the last batch came from, for the message that reports a bad one."""
        ...
