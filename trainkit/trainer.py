"""The training loop: fetch, accumulate, clip, step, record, maybe evaluate, maybe save.

The loop knows tensors and sums. What a batch is, what the loss is and what a weight counts is the caller's business.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from signal import Signals

from profiling.nvtx import nvtx_range
from trainkit.callbacks import Callback
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.rng import seed_process
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.distributed.strategy import Strategy, prepare_model
from trainkit.errors import NonFiniteLoss
from trainkit.evaluation import Evaluator, Validation
from trainkit.metrics import EvaluationRecord, StepClock, StepRecord
from trainkit.protocols import Batch
from trainkit.saving import StateSaver, verify_on_first_rank
from trainkit.settings import Task, TrainerSettings, TrainResult
from trainkit.signals import Interrupted, StopSignals
from trainkit.state import TrainState
from trainkit.training.accumulate import (
    Accumulator,
    StepTotals,
    count_rows,
    limit_gradient_norm,
    move_to,
    scale_gradients,
)
from trainkit.training.averaging import AveragedWeights
from trainkit.training.optim import build_optimizer, set_learning_rate, trained_parameters
from trainkit.training.precision import Precision


class Trainer:
    """Train one task in one world, alone or as one of many equal ranks."""

    def __init__(
        self,
        task: Task,
        settings: TrainerSettings,
        world: World | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: CheckpointManager | None = None,
        validation: Validation | None = None,
    ):
        """Prepare the model (device, compile, DDP or FSDP) and the optimizer; without `checkpoints` nothing is saved.

        The model is moved and trained in place; its weights are made those of rank 0.
        """
        self.settings = settings
        self.world = world or World()
        self.max_steps = settings.schedule.max_steps
        self.checkpoints = checkpoints
        self.callbacks = [hook for hook in callbacks if self.world.is_first or hook.runs_on_every_rank]
        assert len({type(hook) for hook in callbacks}) == len(callbacks), "checkpoints tell callbacks apart by class"
        self.source = task.source
        self.model = task.model
        self.precision = Precision(settings.precision, self.world.device)
        self.prepared = prepare_model(
            self.model,
            task.blocks,
            self.world,
            Strategy(settings.strategy, settings.recompute_blocks, settings.compile, self.precision.dtype),
        )
        self.parameters = trained_parameters(self.model)
        self.averages = AveragedWeights(self.model, settings.average_decay) if settings.average_decay else None
        self.state = TrainState(
            model=self.model,
            optimizer=build_optimizer(self.model, settings.optimizer, task.role_of),
            scaler=self.precision.scaler,
            source=task.source,
            callbacks={type(hook).__name__: hook for hook in self.callbacks},
            world=self.world,
            averages=self.averages,
        )
        self.accumulator = Accumulator(self.prepared, task.objective, self.world, self.precision, settings.seed)
        self.evaluator = (
            Evaluator(validation, task.objective, self.world, self.precision, settings.seed) if validation else None
        )
        self.stop = StopSignals()
        self.saver = (
            StateSaver(checkpoints, self.state, self.callbacks, settings.save_in_background) if checkpoints else None
        )
        self.clock = StepClock()
        self.origins: list[str] = []
        self.ranks_at_start: list[dict] | None = None
        """The ranks' state before the first step of a session that compiles; None once that step is done."""
        self.last_evaluation: EvaluationRecord | None = None
        seed_process(settings.seed, self.world.rank)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint: call this on every rank, before `fit`.

        Raises CheckpointError if it is damaged, or belongs to another model or number of ranks.
        """
        verify_on_first_rank(folder, self.world)
        self.state.read(folder)
        if self.saver:
            self.saver.last_saved = folder
        for callback in self.callbacks:
            callback.on_checkpoint_loaded(self.state.step, folder)

    def fit(self) -> TrainResult:
        """Train to the last step, or until a signal; evaluate, report and save on the way.

        Raises NonFiniteLoss before a bad gradient is applied, CheckpointSaveError if a checkpoint cannot be written.
        """
        stop_signal = None
        with self.stop, ExitStack() as on_exit:
            on_exit.push(self._finish)
            self._start()
            if self.state.is_evaluation_due:
                stop_signal = self._maybe_evaluate(None)
                self._maybe_save(stop_signal)
            while self.state.step < self.max_steps and stop_signal is None:
                batches = self._fetch()
                try:
                    totals = self._accumulate(batches)
                except Interrupted as interruption:
                    stop_signal = interruption.signal
                    self._leave_first_step(stop_signal)
                    break
                grad_norm = self._clip(totals)
                self._step(totals)
                self._record(totals, grad_norm)
                stop_signal = self._maybe_evaluate(totals.stop_signal)
                self._maybe_save(stop_signal)
        is_resumable = self.saver is not None and (self.state.step > 0 or not self.prepared.is_sharded)
        return TrainResult(self.state.step, self.last_saved, self.last_evaluation, stop_signal, is_resumable)

    @property
    def last_saved(self) -> Path | None:
        """Return the checkpoint saved or resumed from last; None on other ranks than 0, or if there is none."""
        return self.saver.last_saved if self.saver else None

    def evaluate(self) -> EvaluationRecord:
        """Evaluate now and tell the callbacks; every rank must call this.

        Raises Interrupted, on all ranks, if a signal comes meanwhile.
        """
        assert self.evaluator, "evaluate() needs a Validation"
        for callback in self.callbacks:
            callback.on_evaluation_start(self.state.step)
        with nvtx_range("evaluate"), self.averages.in_place_of_weights() if self.averages else nullcontext():
            record = self.evaluator.evaluate(self.prepared, self.state.step, self.stop)
        for callback in self.callbacks:
            callback.on_evaluation_end(record)
        self.last_evaluation = record
        if record.loss < self.state.best_loss:
            self.state.best_loss, self.state.best_step = record.loss, record.step
        return record

    def save(self) -> Path | None:
        """Save a checkpoint now, and wait for it; every rank must call this. Returns its folder on rank 0."""
        assert self.saver, "save() needs a CheckpointManager"
        self._begin_save()
        return self.saver.finish()

    def _begin_save(self) -> None:
        evaluation = self.last_evaluation
        self.saver.begin(evaluation.loss if evaluation and evaluation.step == self.state.step else None)

    def _start(self) -> None:
        if self.evaluator:
            self.evaluator.check_not_empty()
        self.model.train()
        self.ranks_at_start = self.state.collect_ranks() if self.settings.compile else None
        if self.saver:
            self.saver.start()
        self.clock.start_session(self.state.elapsed_s)
        for callback in self.callbacks:
            callback.on_train_start(self.state.step, self.max_steps)

    def _fetch(self) -> list[Batch]:
        """Take the step's micro-batches from this rank's source, remembering where each came from."""
        step = self.state.step + 1
        for callback in self.callbacks:
            callback.on_step_start(step)
        self.clock.start_step()
        batches, self.origins = [], []
        for _ in range(self.settings.grad_accum_steps):
            try:
                with nvtx_range("fetch"):
                    batch = next(self.source)
            except StopIteration:
                raise ValueError(
                    f"the training data ended in step {step} of {self.max_steps}: give it more data, repeat it, "
                    "or train for fewer steps"
                ) from None
            batches.append(move_to(batch, self.world.device))
            self.origins.append(self.source.origin())
        rows = {count_rows(batch) for batch in batches}
        if len(rows) > 1:
            raise ValueError(f"the micro-batches of step {step} have {sorted(rows)} rows: each must have the same")
        self.clock.end_fetch()
        return batches

    def _accumulate(self, batches: list[Batch]) -> StepTotals:
        """Run forward and backward; where that compiles first, which takes minutes, a signal cuts it short."""
        is_first_compiled = self.ranks_at_start is not None
        with self.stop.interruptible() if is_first_compiled else nullcontext():
            totals = self.accumulator.accumulate(self.state.step + 1, batches, self.stop.received)
        self.ranks_at_start = None
        return totals

    def _clip(self, totals: StepTotals) -> float:
        """Turn gradients of sums into the gradient of the mean loss, limit its norm, and return the norm before.

        A loss or gradient that is not finite ends the run here, before it can reach the parameters.
        """
        if not math.isfinite(totals.loss_sum + totals.weight):
            raise NonFiniteLoss(self._describe_bad_step(f"the loss is {totals.loss_sum}", totals))
        if totals.weight <= 0:
            raise ValueError(
                f"step {self.state.step + 1}: the weight of the global batch is {totals.weight:g}, so there is nothing "
                f"to learn from; this rank's rows came from {'; '.join(self.origins)}"
            )
        if self.precision.is_scaled:
            self.precision.scaler.unscale_(self.state.optimizer)
        scale_gradients(self.parameters, self.world.size / totals.weight)
        limit = math.inf if self.settings.grad_clip_norm is None else self.settings.grad_clip_norm
        grad_norm = limit_gradient_norm(self.parameters, limit).item()
        if not math.isfinite(grad_norm) and not self.precision.is_scaled:
            raise NonFiniteLoss(self._describe_bad_step(f"the gradient norm is {grad_norm}", totals))
        for callback in self.callbacks:
            callback.on_gradients_ready(self.state.step + 1, grad_norm)
        return grad_norm

    def _describe_bad_step(self, what: str, totals: StepTotals) -> str:
        """Say which micro-batches were bad, on all ranks (which all come here, since the totals are shared)."""
        bad = [not math.isfinite(loss.item()) for loss in totals.local_losses]
        suspects = [origin for origin, is_bad in zip(self.origins, bad, strict=True) if is_bad or not any(bad)]
        newest = self.saver.finish() if self.saver else None
        by_rank = gather_objects((any(bad), suspects, newest), self.world)
        guilty = [(rank, origins) for rank, (is_bad, origins, _) in enumerate(by_rank) if is_bad]
        guilty = guilty or [(rank, origins) for rank, (_, origins, _) in enumerate(by_rank)]
        came_from = "; ".join(f"rank {rank}: {', '.join(origins)}" for rank, origins in guilty)
        newest = by_rank[0][2]
        return f"step {self.state.step + 1}: {what}; the batch came from {came_from}. Stopped before the update; " + (
            f"the last good checkpoint is {newest}" if newest else "no checkpoint was saved yet"
        )

    def _step(self, totals: StepTotals) -> None:
        """Update the parameters at this step's learning rate."""
        set_learning_rate(self.state.optimizer, self.settings.schedule(self.state.step + 1))
        with nvtx_range("optimizer"):
            self.precision.step(self.state.optimizer)
            self.state.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        if self.averages:
            self.averages.update(self.state.step)
        self.state.weight_seen += totals.weight

    def _record(self, totals: StepTotals, grad_norm: float) -> None:
        step = self.state.step
        self.state.elapsed_s = self.clock.end_step()
        record = StepRecord(
            step=step,
            loss=totals.loss_sum / totals.weight,
            learning_rate=self.settings.schedule(step),
            grad_norm=grad_norm,
            weight=totals.weight,
            weight_seen=self.state.weight_seen,
            step_ms=self.clock.step_ms,
            data_wait_ms=self.clock.data_wait_ms,
            data_wait_share=self.clock.data_wait_share,
            elapsed_s=self.state.elapsed_s,
            metrics={name: value / totals.weight for name, value in totals.metric_sums.items()},
        )
        is_logged = step % self.settings.log_every == 0 or step == self.max_steps or totals.stop_signal is not None
        for callback in self.callbacks:
            callback.on_step_end(record)
            if is_logged:
                callback.on_log(record)

    def _maybe_evaluate(self, stop_signal: Signals | None) -> Signals | None:
        """Evaluate if it is time to and no signal came; returns the signal that came until now."""
        state = self.state
        is_due = bool(self.evaluator and self.evaluator.validation.is_due(state.step, self.max_steps))
        state.is_evaluation_due = is_due  # and made up for after resuming, should a signal prevent it now
        if stop_signal is not None or not is_due:
            return stop_signal
        try:
            self.evaluate()
        except Interrupted as interruption:
            return interruption.signal
        state.is_evaluation_due = False
        return None

    def _maybe_save(self, stop_signal: Signals | None) -> None:
        if self.saver:
            self.saver.poll()
            step, every = self.state.step, self.settings.save_every
            is_last = step == self.max_steps or stop_signal is not None
            is_kept_as_best = step == self.state.best_step and self.checkpoints.retention.keep_best > 0
            if is_last or is_kept_as_best or (every > 0 and step % every == 0):
                self._begin_save()
            if is_last:
                self.saver.finish()
        if stop_signal is not None:
            self._tell_of_stop(stop_signal)

    def _leave_first_step(self, stop_signal: Signals) -> None:
        """Save what the session began with.

        The ranks do not meet again: some may be compiling, others waiting for their gradients. A sharded model, which
        none of them has whole, is therefore not saved: nothing was learned yet.
        """
        if self.saver and self.last_saved is None and not self.prepared.is_sharded:
            self.saver.begin(ranks=self.ranks_at_start)
            self.saver.finish()
        self._tell_of_stop(stop_signal)

    def _tell_of_stop(self, stop_signal: Signals) -> None:
        for callback in self.callbacks:
            callback.on_stop(self.state.step, stop_signal, self.last_saved)

    def _finish(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if self.saver:
            self.saver.close(is_stopping=error is not None or self.stop.received is not None)
        for callback in self.callbacks:
            if error is not None:
                callback.on_error(self.state.step, error)
            callback.on_train_end(self.state.step)
