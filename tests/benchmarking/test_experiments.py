"""The experiments' scaffolding: configurations that load, runs that resume, errors over seeds, and compute counted."""

import math

import pytest

from benchmarking.experiments import records
from benchmarking.experiments.measuring import KnownRows
from benchmarking.experiments.records import Records, average
from benchmarking.experiments.training import AUTOREGRESSIVE, MASKED, block_arm, load_arm, log_spaced, train_and_measure
from config.sections.data import HIDDEN_MARKOV

SHORT = ["training.max_steps=45", "training.batch_size=4", "optimizer.warmup_steps=5"]


@pytest.mark.parametrize("name", ["compute", "epochs", "mask_draws", "samplers"])
@pytest.mark.parametrize("arm", [AUTOREGRESSIVE, MASKED, block_arm(4)], ids=lambda arm: arm.name)
def test_arms_differ_in_their_objective_only(name, arm):
    config, plain = load_arm(name, arm, 3), load_arm(name, AUTOREGRESSIVE, 3)
    assert (config.training.seed, config.data.shuffle_seed) == (3, 3)
    assert config.model_copy(update={"objective": plain.objective}) == plain


def test_a_figure_shows_the_mean_and_its_standard_error():
    lines = [{"x": 1, "y": 2.0}, {"x": 1, "y": 4.0}, {"x": 0, "y": 5.0}, {"x": 2}]
    low, high = average(lines, "x", "y")
    assert (low.x, low.mean, low.error, low.count) == (0, 5.0, 0.0, 1)
    assert (high.mean, high.count) == (3.0, 2)
    assert high.error == pytest.approx(math.sqrt(2) / math.sqrt(2))
    (both,) = average([{"x": 1, "y": 1.0, "k": "a"}, {"x": 3, "y": 2.0, "k": "a"}], "x", "y", by="k")
    assert (both.x, both.mean) == (2, 1.5)


def test_an_interrupted_experiment_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    first = Records("mine")
    assert not first.holds(seed=0)
    first.add([{"seed": 0, "y": 1.5}, {"seed": 0, "y": 2.5}])
    again = Records("mine")
    assert again.holds(seed=0)
    assert not again.holds(seed=1)
    assert again.select(seed=0) == [{"seed": 0, "y": 1.5}, {"seed": 0, "y": 2.5}]


def test_steps_are_spaced_evenly_in_the_logarithm():
    assert log_spaced(400) == [25, 50, 100, 200, 400]
    assert log_spaced(300) == [25, 50, 100, 200, 300]


@pytest.mark.slow
@pytest.mark.parametrize("arm", [AUTOREGRESSIVE, MASKED, block_arm(4)], ids=lambda arm: arm.name)
def test_a_short_run_is_measured_on_the_way_and_learns(arm):
    config = load_arm("samplers", arm, 0, SHORT)
    found = {}

    def measure(loaded, step):
        rows = KnownRows.of(HIDDEN_MARKOV, loaded.tokenizer, config.model.context_length, rows=4)
        assert rows.true_nats_per_token == pytest.approx(1.37, abs=0.1)
        found[step] = rows.excess_nats(loaded)

    train_and_measure(config, [1, 45], measure)
    assert found.keys() == {1, 45}
    assert 0 < found[45] < found[1] - 1
