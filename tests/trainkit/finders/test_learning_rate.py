"""The range test finds where the loss falls, where it is lowest and where it explodes, and leaves nothing else."""

import math

import pytest
import torch
from torch import nn

from trainkit.finders.learning_rate import LearningRateSweep, RangeWatch, interpret, run_range_test
from trainkit.protocols import StepOutput
from trainkit.settings import Task, TrainerSettings
from trainkit.trainer import Trainer
from trainkit.training.optim import AdamWSettings


def test_the_sweep_goes_from_end_to_end_by_one_factor():
    sweep = LearningRateSweep(1e-5, 1e-1, 41)
    assert (sweep(1), sweep(41)) == pytest.approx((1e-5, 1e-1))
    assert all(sweep(i + 1) / sweep(i) == pytest.approx(10**0.1) for i in range(1, 41))
    with pytest.raises(ValueError, match="rates must be above 0 and rise, in at least 20 steps"):
        LearningRateSweep(1e-2, 1e-3, 41)


def test_the_steepest_and_the_lowest_rate_of_a_known_curve_are_found():
    sweep = LearningRateSweep(1e-6, 1.0, 121)
    rates = [sweep(step) for step in range(1, 122)]
    # In log10(rate): falls along tanh, steepest at -3, flat at the bottom until it turns up at -1.
    losses = [5 - 2 * math.tanh(math.log10(r) + 3) + max(0.0, math.log10(r) + 1) * 3 for r in rates]
    found = interpret(rates, losses, has_exploded=True)
    assert math.log10(found.steepest_rate) == pytest.approx(-3, abs=0.2)
    assert math.log10(found.lowest_rate) == pytest.approx(-1, abs=0.3)
    assert found.diverged_rate == rates[-1]
    assert "explodes at 1" in found.describe()


def test_a_loss_that_never_falls_is_said_to():
    sweep = LearningRateSweep(1e-6, 1.0, 40)
    rates = [sweep(step) for step in range(1, 41)]
    found = interpret(rates, [1.0 + 0.1 * step for step in range(40)], has_exploded=False)
    assert found.steepest_rate is None
    assert found.describe().startswith("the loss never fell")


class Points:
    """Points on y = 3x, forever."""

    def __next__(self):
        x = torch.linspace(-1, 1, 16)[:, None]
        return {"x": x, "y": 3 * x}

    def origin(self):
        return "points"

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_model_that_learns_and_then_explodes_ends_the_sweep_early(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def objective(model, batch, context):
        return StepOutput((model(batch["x"]) - batch["y"]).square().sum(), torch.tensor(16), {})

    torch.manual_seed(0)
    sweep = LearningRateSweep(1e-4, 1e3, 140)
    settings = TrainerSettings(schedule=sweep, optimizer=AdamWSettings(weight_decay=0.0), grad_clip_norm=None)
    watch = RangeWatch()
    found = run_range_test(Trainer(Task(nn.Linear(1, 1), objective, Points()), settings, callbacks=[watch]), watch)
    assert 20 < len(found.rates) < 140
    assert found.diverged_rate == found.rates[-1] < 1e3
    assert found.rates[0] < found.steepest_rate < found.lowest_rate < found.diverged_rate
    assert list(tmp_path.iterdir()) == []
