"""The moving average of the weights: what it is, and that lending it leaves no trace."""

import pytest
import torch
from parity_workers import Cell, make_deep_trainer
from trainkit_workers import global_batch, weights_of

from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World
from trainkit.evaluation import Validation
from trainkit.training.averaging import AveragedWeights


class KeepWeights(Callback):
    """Keep the weights before the first and after every step."""

    def __init__(self):
        self.trainer, self.weights, self.evaluated = None, [], []

    def on_train_start(self, step, max_steps):
        self.weights.append(weights_of(self.trainer))

    def on_step_end(self, record):
        self.weights.append(weights_of(self.trainer))

    def on_evaluation_end(self, record):
        self.evaluated.append(record.loss)


def train(decay: float, max_steps: int = 5):
    keep = KeepWeights()
    validation = Validation(make_batches=lambda: [global_batch(100)], every=0, max_batches=1)
    changes = {"max_steps": max_steps, "average_decay": decay}
    trainer = make_deep_trainer(World(), Cell(), changes=changes, callbacks=[keep], validation=validation)
    keep.trainer = trainer
    trainer.fit()
    return trainer, keep


def test_the_average_forgets_slowly_and_the_random_beginning_quickly():
    trainer, keep = train(decay=0.4)
    names = dict(trainer.model.named_parameters())
    expected = dict(keep.weights[0])
    for step, weights in enumerate(keep.weights[1:], start=1):
        share = min(0.4, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13, 5/14, then 0.4
        expected = {name: share * expected[name] + (1 - share) * weights[name] for name in names}
    for name, parameter in names.items():
        torch.testing.assert_close(trainer.averages.by_parameter()[parameter], expected[name], msg=name)


def test_evaluation_sees_the_average_and_training_never_does():
    averaged, keep = train(decay=0.9)
    plain, keep_plain = train(decay=0.0)
    assert keep.evaluated != keep_plain.evaluated
    for name, tensor in weights_of(averaged).items():
        assert torch.equal(tensor, weights_of(plain)[name]), "averaging must not change the run"
    with averaged.averages.in_place_of_weights():
        lent = weights_of(averaged)
    assert not torch.equal(lent["embedding.weight"], keep.weights[-1]["embedding.weight"])
    assert all(torch.equal(tensor, keep.weights[-1][name]) for name, tensor in weights_of(averaged).items())


def test_weights_come_back_from_a_failing_evaluation():
    trainer, _ = train(decay=0.9)
    before = weights_of(trainer)
    with pytest.raises(RuntimeError, match="out of luck"), trainer.averages.in_place_of_weights():
        raise RuntimeError("out of luck")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(trainer).items())


@pytest.mark.parametrize("decay", [-0.1, 0.0, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        AveragedWeights(torch.nn.Linear(2, 2), decay)
