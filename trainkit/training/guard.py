"""Keep bad steps out of the parameters: what is not finite, or far above what was usual lately.

The verdict is a tensor on the device and the update obeys it there, so that the host need not wait for it: it reads
the numbers later, together with all others, and only then reports or stops.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainkit.training.optim import separate_optimizers

WINDOW_STEPS = 100
_EMA_DECAY = 0.98


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say of a step, on the device, whether it may reach the parameters."""

    is_good: Tensor
    """[] bool."""
    is_spike: Tensor
    """[] bool: finite, but too far above the steps before."""
    loss_ema: Tensor
    """[] float64: running mean of the loss of good steps."""
    skipped_steps: Tensor
    """[] float64: steps of the run that were not good, this one included."""
    skipped_in_a_row: Tensor
    """[] float64."""


class StepGuard:
    """Judge each step by its loss and gradient norm, with the last good steps in mind.

    A step is a spike if either exceeds the mean of the last 100 good steps by more than `spike_deviations` of their
    standard deviations; 0 never calls anything a spike. Before 100 good steps nothing is one.
    """

    def __init__(self, device: torch.device, spike_deviations: float = 0.0):
        self.spike_deviations = spike_deviations
        self._window = torch.zeros(2, WINDOW_STEPS, dtype=torch.float64, device=device)  # losses, gradient norms
        # good steps, skipped steps, skipped in a row, decayed sum of losses, decayed number of losses
        self._counts = torch.zeros(5, dtype=torch.float64, device=device)

    @torch.no_grad()
    def judge(self, loss: Tensor, grad_norm: Tensor) -> Verdict:
        """Judge one step and remember it; loss and grad_norm are [] on the guard's device. Waits for nothing."""
        found = torch.stack([loss.double(), grad_norm.double()])
        good_steps, skipped, in_a_row, loss_sum, loss_count = self._counts.unbind()
        is_finite = found.isfinite().all()
        is_spike = torch.zeros_like(is_finite)
        if self.spike_deviations:
            deviation, mean = torch.std_mean(self._window, dim=1)
            is_above = (found > mean + self.spike_deviations * deviation).any()
            is_spike = is_finite & is_above & (good_steps >= WINDOW_STEPS)
        is_good = is_finite & ~is_spike
        place = (good_steps % WINDOW_STEPS).long().expand(2, 1)
        kept = torch.where(is_good, found[:, None], self._window.gather(1, place))
        self._window.scatter_(1, place, kept)
        counts = torch.stack(
            [
                good_steps + is_good,
                skipped + ~is_good,
                (in_a_row + 1) * ~is_good,
                torch.where(is_good, _EMA_DECAY * loss_sum + found[0], loss_sum),
                torch.where(is_good, _EMA_DECAY * loss_count + 1, loss_count),
            ]
        )
        self._counts.copy_(counts)
        return Verdict(is_good, is_spike, counts[3] / counts[4], counts[1], counts[2])

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is remembered of earlier steps."""
        return {"window": self._window.cpu(), "counts": self._counts.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a remembered state."""
        self._window.copy_(state["window"])
        self._counts.copy_(state["counts"])


def step_if(optimizer: torch.optim.Optimizer, is_good: Tensor) -> None:
    """Update the parameters if `is_good`, else leave them and the optimizer's state as they are.

    is_good: [] bool. On a GPU the host does not read it.
    """
    if is_good.is_cuda:
        step_on_device(optimizer, is_good)
    elif is_good:
        optimizer.step()


@torch.no_grad()
def step_on_device(optimizer: torch.optim.Optimizer, is_good: Tensor) -> None:
    """Do what `step_if` does by device work alone.

    Fused optimizers obey a flag (the one torch's gradient scaler sets). Others update, and are put back where the
    step was bad: that takes a copy of their parameters and state for the time of the update.
    """
    for part in separate_optimizers(optimizer):
        if part.defaults.get("fused"):
            part.grad_scale, part.found_inf = None, (~is_good).float()
            part.step()
            del part.grad_scale, part.found_inf
        else:
            _step_or_put_back(part, is_good)


def _step_or_put_back(optimizer: torch.optim.Optimizer, is_good: Tensor) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    weights = [parameter.clone() for parameter in parameters]
    states = [_clone_tensors(optimizer.state[parameter]) for parameter in parameters]
    optimizer.step()
    for parameter, weight, state in zip(parameters, weights, states, strict=True):
        parameter.copy_(torch.where(is_good, parameter, weight))
        for name, value in _clone_tensors(optimizer.state[parameter]).items():
            before = state.get(name, torch.zeros_like(value))  # state that the first step makes begins at zero
            optimizer.state[parameter][name].copy_(torch.where(is_good, value, before))


def _clone_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
