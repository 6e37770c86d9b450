"""The loop: order of hooks, counting, and what it says when it cannot go on."""

import math
import re
import time

import pytest
import torch
from trainkit_workers import (
    ToySource,
    evaluate_uneven,
    global_batch,
    make_settings,
    make_trainer,
    toy_objective,
    train_poisoned,
    weights_of,
)

from trainkit.callbacks import Callback
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.distributed.parallel import World
from trainkit.errors import NonFiniteLoss
from trainkit.evaluation import Validation
from trainkit.metrics import EvaluationRecord, StepRecord
from trainkit.protocols import StepOutput
from trainkit.training.optim import AdamWSettings, MuonSettings
from trainkit.training.schedule import Schedule


class Diary(Callback):
    """Write down every hook that is called."""

    def __init__(self):
        self.entries: list[str] = []
        self.records = []
        self.evaluations = []

    def on_train_start(self, step, max_steps):
        self.entries.append(f"start {step} of {max_steps}")

    def on_step_start(self, step):
        self.entries.append(f"begin {step}")

    def on_gradients_ready(self, step, grad_norm):
        self.entries.append(f"gradients {step}")

    def on_step_end(self, record):
        self.entries.append(f"end {record.step}")
        self.records.append(record)

    def on_log(self, record):
        self.entries.append(f"log {record.step}")

    def on_evaluation_end(self, record):
        self.entries.append(f"evaluation {record.step}")
        self.evaluations.append(record)

    def write_extras(self, folder):
        self.entries.append("extras")
        (folder / "config.toml").write_text("steps = 3\n")

    def on_checkpoint_saved(self, step, path):
        self.entries.append(f"saved {path.name}")

    def on_error(self, step, error):
        self.entries.append(f"error {type(error).__name__}")

    def on_train_end(self, step):
        self.entries.append(f"over {step}")


def toy_validation(every: int = 0) -> Validation:
    def make_batches():
        source = ToySource(World(), 1)
        return [next(source) for _ in range(2)]

    return Validation(make_batches, every=every, max_batches=4)


def test_every_hook_is_called_in_order(tmp_path):
    diary = Diary()
    trainer = make_trainer(
        World(),
        make_settings(log_every=2, save_every=2, save_in_background=False),
        callbacks=[diary],
        checkpoints=CheckpointManager(tmp_path),
        validation=toy_validation(every=2),
    )
    result = trainer.fit()
    assert diary.entries == [
        "start 0 of 3",
        *("begin 1", "gradients 1", "end 1"),
        *("begin 2", "gradients 2", "end 2", "log 2", "evaluation 2", "extras", "saved step_00000002"),
        *("begin 3", "gradients 3", "end 3", "log 3", "evaluation 3", "extras", "saved step_00000003"),
        "over 3",
    ]
    assert (result.step, result.exit_code, result.checkpoint.name) == (3, 0, "step_00000003")
    assert (result.checkpoint / "config.toml").read_text() == "steps = 3\n"
    assert "config.toml" in (result.checkpoint / "manifest.json").read_text()


def test_steps_are_optimizer_steps_and_records_are_divided_by_the_global_weight():
    whole, cut = Diary(), Diary()
    make_trainer(World(), make_settings(), callbacks=[whole]).fit()
    make_trainer(World(), make_settings(grad_accum_steps=4), callbacks=[cut]).fit()
    assert [record.step for record in cut.records] == [1, 2, 3]
    for a, b in zip(whole.records, cut.records, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-6)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-5)
        assert (a.weight, a.weight_seen) == (b.weight, b.weight_seen)
        assert a.metrics["accuracy"] == b.metrics["accuracy"]
        assert 0 <= a.metrics["accuracy"] <= 1
    assert [record.learning_rate for record in whole.records] == pytest.approx([0.01, 0.02, 0.002])


def test_evaluation_sees_the_same_noise_every_time_and_leaves_the_model_training():
    trainer = make_trainer(World(), make_settings(), dropout=0.5, validation=toy_validation())
    trainer.model.train()
    assert trainer.evaluate().loss == trainer.evaluate().loss
    assert trainer.model.training


def test_empty_validation_set_is_reported_before_the_first_step():
    diary = Diary()
    empty = Validation(make_batches=list, every=1, max_batches=4)
    with pytest.raises(ValueError, match=r"holds less than one row.*skip validation"):
        make_trainer(World(), make_settings(), callbacks=[diary], validation=empty).fit()
    assert diary.entries == ["error ValueError", "over 0"]


def test_uneven_validation_sets_neither_hang_nor_bias_and_empty_ones_are_an_error(run_ranks):
    uneven = run_ranks(evaluate_uneven, 2, [5, 1])
    assert uneven[0] == uneven[1]
    assert uneven[0][2] == 3 + 1  # at most three batches a rank
    only_first = run_ranks(evaluate_uneven, 2, [2, 0])
    assert only_first[0] == only_first[1]
    assert only_first[0][2] == 2
    none_on_first = run_ranks(evaluate_uneven, 2, [0, 2])
    assert none_on_first[0] == none_on_first[1]
    assert none_on_first[0][2] == 2
    for error in run_ranks(evaluate_uneven, 2, [0, 0]):
        assert isinstance(error, ValueError)
        assert "holds less than one row" in str(error)


@pytest.mark.parametrize("batches_by_rank", [[3, 1], [0, 2], [2, 0]])
def test_uneven_validation_sets_do_not_hang_a_model_that_talks_in_its_forward_pass(batches_by_rank, run_ranks):
    talking = run_ranks(evaluate_uneven, 2, batches_by_rank, True)
    silent = run_ranks(evaluate_uneven, 2, batches_by_rank)
    assert talking == silent
    batches = [global_batch(10 * rank + i) for rank, number in enumerate(batches_by_rank) for i in range(number)]
    targets = sum(int(batch["valid"].sum()) for batch in batches)
    assert talking[0][1:] == (targets, len(batches)), "what a rank does to keep others company counts for nothing"


def test_nan_loss_stops_before_the_update_and_names_step_origin_and_last_good_checkpoint(tmp_path, run_ranks):
    for error in run_ranks(train_poisoned, 2, str(tmp_path)):
        assert isinstance(error, NonFiniteLoss), error
        assert str(error).startswith("step 3: the loss is nan; the batch came from rank 1: toy batch 5. Stopped before")
        assert str(error).endswith("step_00000002")
    assert [path.name for path in CheckpointManager(tmp_path).list_checkpoints()] == ["step_00000001", "step_00000002"]


def test_infinite_gradient_stops_before_the_update():
    def objective(model, batch, context):
        loss = sum(p.sum() for p in model.parameters()) * 0 + torch.sqrt(model.mix.bias * 0).sum()  # slope of sqrt at 0
        return StepOutput(loss, torch.tensor(1.0), {})

    trainer = make_trainer(World(), make_settings(), objective=objective)
    before = trainer.model.mix.bias.detach().clone()
    with pytest.raises(
        NonFiniteLoss, match=r"step 1: the gradient norm is nan; .*toy batch 1.*no checkpoint was saved"
    ):
        trainer.fit()
    assert torch.equal(trainer.model.mix.bias, before)


class Poison:
    """The toy objective, its loss multiplied by `factor` in some steps, which it counts by its calls."""

    def __init__(self, bad_steps, factor=float("nan")):
        self.bad_steps, self.factor, self.step = set(bad_steps), factor, 0

    def __call__(self, model, batch, context):
        self.step += 1
        output = toy_objective(model, batch, context)
        factor = self.factor if self.step in self.bad_steps else 1.0
        return StepOutput(output.loss_sum * factor, output.weight, output.metrics)


@pytest.mark.parametrize("optimizer", [AdamWSettings(), MuonSettings()])
def test_a_skipped_step_counts_as_a_step_and_changes_nothing_else(optimizer):
    diary, before = Diary(), {}

    class Watch(Callback):
        def on_gradients_ready(self, step, grad_norm):
            before[step] = weights_of(trainer)

    settings = make_settings(5, on_nonfinite="skip", optimizer=optimizer)
    trainer = make_trainer(World(), settings, callbacks=[diary, Watch()], objective=Poison({2, 4}))
    assert trainer.fit().step == 5
    assert [record.skipped_steps for record in diary.records] == [0, 1, 1, 2, 2]
    unchanged = {
        step: all(torch.equal(before[step][k], before[step + 1][k]) for k in before[1]) for step in range(1, 5)
    }
    assert unchanged == {1: False, 2: True, 3: False, 4: True}
    losses = [record.loss for record in diary.records]
    assert [math.isfinite(loss) for loss in losses] == [True, False, True, False, True]
    assert math.isfinite(diary.records[-1].loss_ema)
    assert diary.records[-1].weight_seen == sum(record.weight for record in diary.records)


def test_steps_skipped_without_end_stop_the_run():
    settings = make_settings(50, on_nonfinite="skip")
    trainer = make_trainer(World(), settings, objective=Poison(range(3, 100)))
    with pytest.raises(
        NonFiniteLoss, match=r"step 22: the loss is nan, and 20 steps in a row were skipped; .*batch 22"
    ):
        trainer.fit()


def test_a_spike_is_skipped_and_counted():
    diary = Diary()
    settings = make_settings(106, spike_deviations=8.0)
    make_trainer(World(), settings, callbacks=[diary], objective=Poison({50, 104}, factor=50.0)).fit()
    skipped = {record.step: record.skipped_steps for record in diary.records}
    assert (skipped[50], skipped[103], skipped[104], skipped[106]) == (0, 0, 1, 1), "50 is too early to know"


def test_a_resumed_run_remembers_what_was_usual_and_what_was_skipped(tmp_path):
    """A spike at step 104 is one only for a guard that knows the hundred steps before."""

    def train(last: int, **parts: object) -> list[StepRecord]:
        diary, poison = Diary(), Poison({104}, factor=50.0)
        settings = make_settings(last, spike_deviations=8.0, schedule=Schedule("constant", 0.01, last))
        trainer = make_trainer(World(), settings, callbacks=[diary], objective=poison, **parts)
        if "checkpoints" in parts and parts["checkpoints"].latest():
            trainer.resume(parts["checkpoints"].latest())
        poison.step = trainer.state.step
        trainer.fit()
        return diary.records

    whole = train(106)
    resumed = [record for last in (103, 105, 106) for record in train(last, checkpoints=CheckpointManager(tmp_path))]
    assert [record.skipped_steps for record in resumed[102:]] == [0, 1, 1, 1]
    assert [record.loss_ema for record in resumed] == [record.loss_ema for record in whole]


def test_numbers_that_are_still_on_their_way_are_reported_in_order_and_before_they_are_needed():
    diary = Diary()
    trainer = make_trainer(
        World(), make_settings(6, log_every=3), callbacks=[diary], validation=toy_validation(every=5)
    )

    def add_late(step):  # as on a GPU: only a step that is logged is waited for
        trainer.reporter._in_flight.append(step)
        return trainer.reporter.report(keep=0 if step.step % 3 == 0 else 1)

    trainer.reporter.add = add_late
    trainer.fit()
    told = [entry for entry in diary.entries if not entry.startswith("gradients")]
    assert told == [
        "start 0 of 6", "begin 1", "begin 2", "end 1", "begin 3", "end 2", "end 3", "log 3", "begin 4",
        "begin 5", "end 4", "end 5", "evaluation 5", "begin 6", "end 6", "log 6", "evaluation 6", "over 6",
    ]  # fmt: skip
    assert [record.step for record in diary.records] == [1, 2, 3, 4, 5, 6]


def test_what_is_written_about_a_step_fits_its_parts():
    diary = Diary()
    make_trainer(World(), make_settings(3, flops_per_weight=100.0), callbacks=[diary]).fit()
    for record in diary.records:
        times = record.times
        parts = times.data_wait_ms + times.forward_backward_ms + times.optimizer_ms
        assert parts == pytest.approx(times.step_ms, rel=1e-6)
        assert min(times.data_wait_ms, times.forward_backward_ms, times.optimizer_ms) > 0
        assert record.mfu is None, "no peak is known of a CPU"
        assert record.peak_memory_mb > 50
    first = diary.records[0]
    assert first.loss_ema == pytest.approx(first.loss)
    assert first.learning_rates == pytest.approx(dict.fromkeys(first.learning_rates, 0.01))
    assert len(first.learning_rates) >= 2


def test_saving_and_evaluating_are_counted_as_pauses_of_the_next_logged_step(tmp_path):
    diary = Diary()
    trainer = make_trainer(
        World(),
        make_settings(4, log_every=2, save_every=2),
        callbacks=[diary],
        checkpoints=CheckpointManager(tmp_path),
        validation=toy_validation(every=2),
    )
    trainer.fit()
    pauses = {record.step: record.pauses_ms for record in diary.records}
    assert pauses[2]["evaluation"] == 0
    assert pauses[4]["evaluation"] > 0
    assert pauses[4]["checkpoint"] > 10 * pauses[2]["checkpoint"], "where it was only asked whether one is done"


def test_a_pause_is_reported_once():
    diary, batches = Diary(), toy_validation().make_batches()

    def make_batches():
        if trainer.state.step == 2:
            time.sleep(0.3)
        return batches

    validation = Validation(make_batches, every=2, max_batches=4)
    trainer = make_trainer(World(), make_settings(6, log_every=2), callbacks=[diary], validation=validation)
    trainer.fit()
    pauses = [record.pauses_ms["evaluation"] for record in diary.records if record.step % 2 == 0]
    assert [pause > 300 for pause in pauses] == [False, True, False]


def test_the_best_validation_loss_is_known_and_survives_a_resume(tmp_path):
    losses = iter([3.0, 2.0, 2.5, float("nan"), 2.2, 1.5])
    diary = Diary()

    def train(max_steps):
        trainer = make_trainer(
            World(),
            make_settings(max_steps, schedule=Schedule("constant", 0.01, max_steps=max_steps)),
            callbacks=[diary],
            checkpoints=CheckpointManager(tmp_path),
            validation=toy_validation(every=1),
        )
        trainer.evaluator.evaluate = lambda model, step, stop: EvaluationRecord(step, next(losses), 1.0, 1, {})
        if trainer.checkpoints.latest():
            trainer.resume(trainer.checkpoints.latest())
        return trainer.fit().evaluation

    train(3)
    last = train(6)
    best = [(record.best_step, record.best_loss, record.is_best) for record in diary.evaluations]
    assert best == [(1, 3, True), (2, 2, True), (2, 2, False), (2, 2, False), (2, 2, False), (6, 1.5, True)]
    assert last.to_json()["best_validation_loss"] == 1.5


def test_a_step_without_any_target_is_an_error_that_names_the_rows():
    def objective(model, batch, context):
        return StepOutput(sum(p.sum() for p in model.parameters()) * 0, torch.tensor(0), {})

    with pytest.raises(ValueError, match=r"step 1: the weight of the global batch is 0, .*toy batch 1"):
        make_trainer(World(), make_settings(), objective=objective).fit()


def test_the_end_of_the_data_is_an_error_that_says_what_to_do():
    class Short(ToySource):
        def __next__(self):
            if self.position == 2:
                raise StopIteration
            return super().__next__()

    with pytest.raises(ValueError, match=re.escape("the training data ended in step 3: give it more data")):
        make_trainer(World(), make_settings(), source=Short(World(), 1)).fit()


def test_a_resumed_run_that_is_complete_does_nothing(tmp_path):
    manager = CheckpointManager(tmp_path)
    make_trainer(World(), make_settings(), checkpoints=manager).fit()
    diary = Diary()
    again = make_trainer(World(), make_settings(), checkpoints=manager, callbacks=[diary])
    again.resume(manager.latest())
    assert again.fit().step == 3
    assert diary.entries == ["start 3 of 3", "over 3"]


def test_a_longer_schedule_continues_a_finished_run(tmp_path):
    manager = CheckpointManager(tmp_path)
    make_trainer(World(), make_settings(), checkpoints=manager).fit()
    longer = make_trainer(World(), make_settings(schedule=Schedule("constant", 0.01, max_steps=5)), checkpoints=manager)
    longer.resume(manager.latest())
    assert longer.fit().step == 5
