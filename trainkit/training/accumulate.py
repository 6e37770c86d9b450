"""Turn the micro-batches of one step, on all ranks, into the gradient of the step's mean loss.

The mean is (sum of losses) / (sum of weights) over ranks and micro-batches, and the denominator is known only after
the last forward. So backward runs on *sums*, gradients are exchanged once, in the last micro-batch, and one small
all-reduce then brings the weight that everything is divided by. The result does not depend on the cut:

    rank r, micro-batch m:  backward(loss_sum[r, m])            gradient  G_r = sum_m grad loss_sum[r, m]
    DDP or FSDP, last one:  average over ranks                  G = (sum_r G_r) / world
    here:                   scale by world / weight             (sum_r G_r) / weight
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from signal import Signals

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from profiling.nvtx import nvtx_range
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import sum_over_ranks
from trainkit.distributed.strategy import PreparedModel
from trainkit.protocols import Batch, Objective, StepContext, StepOutput
from trainkit.signals import STOP_SIGNALS
from trainkit.training.precision import Precision
from trainkit.training.seeding import make_generator
from trainkit.training.sums import MetricNames


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Hold a step's sums over all ranks and micro-batches, still on the device; the same on every rank."""

    names: MetricNames
    sums: Tensor
    """[len(names) + stop signals] float64: what `names` lays out, then how many ranks received each stop signal."""
    local_losses: Sequence[Tensor]
    """This rank's loss_sum of each micro-batch, to tell which of them was bad."""

    @property
    def loss(self) -> Tensor:
        """[] the mean loss."""
        return self.sums[0] / self.sums[1]

    @property
    def weight(self) -> Tensor:
        """[] what it was divided by."""
        return self.sums[1]


def received_signal(flags: Sequence[float]) -> Signals | None:
    """Return the stop signal that any rank received; all ranks act on it after the same step."""
    return max((number for number, flag in zip(STOP_SIGNALS, flags, strict=True) if flag), default=None)


class Accumulator:
    """Run the objective over micro-batches and leave un-normalised gradients in the parameters."""

    def __init__(self, prepared: PreparedModel, objective: Objective, world: World, precision: Precision, seed: int):
        self.prepared = prepared
        self.objective = objective
        self.world = world
        self.precision = precision
        self.seed = seed

    def accumulate(self, step: int, batches: Sequence[Batch], stop_signal: Signals | None) -> StepTotals:
        """Run forward and backward over this rank's micro-batches and sum what all ranks found.

        Afterwards each gradient is that of the sum of losses divided by the number of ranks.
        """
        outputs = []
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1
            context = self._context(step, index, batch, len(batches))
            with self.prepared.exchanging_gradients(is_last):
                with nvtx_range("forward"), self.precision.autocast():
                    output = self.objective(self.prepared.training, batch, context)
                with nvtx_range("backward"):
                    self.precision.backward(output.loss_sum)
            outputs.append(output)
        return self._reduce(outputs, stop_signal)

    def _context(self, step: int, index: int, batch: Batch, micro_batches: int) -> StepContext:
        rows = count_rows(batch)
        return StepContext(
            rng=make_generator(self.world.device, self.seed, "step", step),
            first_row=(index * self.world.size + self.world.rank) * rows,
            total_rows=rows * self.world.size * micro_batches,
            step=step,
        )

    def _reduce(self, outputs: Sequence[StepOutput], stop_signal: Signals | None) -> StepTotals:
        names, device = MetricNames.of(outputs[0]), self.world.device
        sums = torch.stack([names.pack(output, device) for output in outputs]).sum(dim=0)
        flags = torch.tensor([float(stop_signal == number) for number in STOP_SIGNALS], dtype=torch.float64)
        return StepTotals(
            names=names,
            sums=sum_over_ranks(torch.cat([sums, flags.to(device, non_blocking=True)]), self.world),
            local_losses=[output.loss_sum.detach() for output in outputs],
        )


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None) -> Tensor:
    """Limit the global norm of the gradients, in place, and return the norm before as [] on their device.

    Sharded or not, it is the norm of the whole gradient.
    """
    with nvtx_range("clip"):
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm).detach()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def scale_gradients(parameters: Sequence[nn.Parameter], factor: Tensor) -> None:
    """Multiply all gradients by `factor` [], in place."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    torch._foreach_mul_(own, factor.to(own[0].dtype))


def count_rows(batch: Batch) -> int:
    """Return the first dimension of the batch's tensors."""
    return next(iter(batch.values())).shape[0]


def move_to(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on `device`, copied without waiting where memory is pinned."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
