"""Bad steps reach neither the parameters nor the optimizer, and nobody reads the verdict to know."""

import copy

import pytest
import torch
from torch import nn

from trainkit.training.guard import WINDOW_STEPS, StepGuard, step_if, step_on_device
from trainkit.training.optim import AdamWSettings, MuonSettings, build_optimizer

CPU = torch.device("cpu")


def judge(guard, loss, grad_norm=1.0):
    return guard.judge(torch.tensor(loss), torch.tensor(grad_norm))


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_what_is_not_finite_is_bad_and_counted_and_leaves_the_mean_alone(loss, norm):
    guard = StepGuard(CPU)
    first = judge(guard, 2.0)
    assert first.is_good
    assert first.loss_ema == 2.0
    bad = judge(guard, loss, norm)
    assert not bad.is_good
    assert (bad.skipped_steps, bad.skipped_in_a_row, bad.loss_ema) == (1, 1, 2.0)
    assert judge(guard, loss, norm).skipped_in_a_row == 2
    again = judge(guard, 4.0)
    assert (again.skipped_steps, again.skipped_in_a_row) == (2, 0)
    assert again.loss_ema == pytest.approx((0.98 * 2 + 4) / 1.98)


def settle(guard, steps=WINDOW_STEPS, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        assert guard.judge(3 + 0.1 * torch.randn((), generator=rng), torch.tensor(1.0)).is_good


@pytest.mark.parametrize(("loss", "norm"), [(4.5, 1.0), (3.0, 9.0)])
def test_a_step_far_above_the_last_hundred_is_a_spike(loss, norm):
    guard = StepGuard(CPU, spike_deviations=6.0)
    settle(guard, WINDOW_STEPS - 1)
    assert judge(guard, loss, norm).is_good, "too early to know what is usual"
    guard = StepGuard(CPU, spike_deviations=6.0)
    settle(guard)
    verdict = judge(guard, loss, norm)
    assert not verdict.is_good
    assert verdict.is_spike
    assert judge(guard, 3.1).is_good, "a spike does not widen what is usual"


def test_without_a_threshold_nothing_is_a_spike():
    guard = StepGuard(CPU)
    settle(guard)
    assert judge(guard, 1e9).is_good


def test_the_memory_survives_a_checkpoint():
    guard, resumed = StepGuard(CPU, 6.0), StepGuard(CPU, 6.0)
    settle(guard)
    resumed.load_state_dict(guard.state_dict())
    for loss in (3.0, 4.5, float("nan"), 3.1):
        first, second = judge(guard, loss), judge(resumed, loss)
        assert (first.is_good, first.loss_ema, first.skipped_steps) == (
            second.is_good, second.loss_ema, second.skipped_steps,
        )  # fmt: skip


def train_with_bad_steps(settings, step, bad_steps):
    """Take six steps, those of `bad_steps` with NaN gradients, through `step(optimizer, is_good)`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_optimizer(model, settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for index in range(6):
        for number, parameter in enumerate(model.parameters()):
            rng = torch.Generator().manual_seed(100 * index + number)
            parameter.grad = torch.randn(parameter.shape, generator=rng)
            if index in bad_steps:
                parameter.grad[...] = float("nan")
        step(optimizer, torch.tensor(index not in bad_steps))
    return [parameter.detach() for parameter in model.parameters()], copy.deepcopy(optimizer.state_dict()["state"])


@pytest.mark.parametrize("settings", [AdamWSettings(), MuonSettings()])
@pytest.mark.parametrize("bad_steps", [{0}, {2, 3}, {0, 5}, set()])
def test_a_bad_step_leaves_parameters_and_optimizer_bitwise_as_if_it_had_never_been(settings, bad_steps):
    def leave_out(optimizer, is_good):
        if is_good:
            optimizer.step()

    expected = train_with_bad_steps(settings, leave_out, bad_steps)
    for step in (step_on_device, step_if):
        weights, states = train_with_bad_steps(settings, step, bad_steps)
        assert all(torch.equal(a, b) for a, b in zip(weights, expected[0], strict=True))
        assert states.keys() == expected[1].keys()
        for index, state in states.items():
            assert all(torch.equal(state[name], value) for name, value in expected[1][index].items())
