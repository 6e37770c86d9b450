"""The training loop: fetch, accumulate, clip, step, record, maybe evaluate, maybe save.

The loop knows tensors and sums. What a batch is, what the loss is and what a weight counts is the caller's business.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from signal import Signals

from torch import Tensor

from profiling.nvtx import nvtx_range
from trainkit.callbacks import Callback
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.rng import seed_process
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.distributed.strategy import Strategy, prepare_model
from trainkit.errors import NonFiniteLoss
from trainkit.evaluation import Evaluator, Validation
from trainkit.hardware import Utilisation
from trainkit.metrics import EvaluationRecord
from trainkit.protocols import Batch
from trainkit.reporting import StepInFlight, StepReporter, send_numbers
from trainkit.saving import StateSaver, verify_on_first_rank
from trainkit.settings import Task, TrainerSettings, TrainResult
from trainkit.signals import Interrupted, StopSignals
from trainkit.state import TrainState
from trainkit.training.accumulate import Accumulator, StepTotals, clip_gradients, scale_gradients
from trainkit.training.averaging import AveragedWeights
from trainkit.training.fetching import take_batches
from trainkit.training.guard import StepGuard, Verdict, step_if
from trainkit.training.optim import build_optimizer, learning_rates, set_learning_rate, trained_parameters
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
        strategy = Strategy(settings.strategy, settings.recompute_blocks, settings.compile, self.precision.dtype)
        self.prepared = prepare_model(self.model, task.blocks, self.world, strategy)
        self.parameters = trained_parameters(self.model)
        self.averages = AveragedWeights(self.model, settings.average_decay) if settings.average_decay else None
        self.state = TrainState(
            model=self.model,
            optimizer=build_optimizer(self.model, settings.optimizer, task.role_of),
            scaler=self.precision.scaler,
            source=task.source,
            guard=StepGuard(self.world.device, settings.spike_deviations),
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
        self.utilisation = Utilisation.of(
            self.world.device, self.world.size, self.precision.dtype, settings.flops_per_weight
        )
        self.reporter = StepReporter(settings, self.state, self.precision, self.utilisation, self.callbacks)
        self.clock = self.reporter.clock
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

        Raises NonFiniteLoss, with no bad gradient applied, CheckpointSaveError if a checkpoint cannot be written.
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
                grad_norm, verdict = self._clip(totals)
                self._step(verdict)
                stop_signal = self._record(totals, grad_norm, verdict)
                stop_signal = self._maybe_evaluate(stop_signal)
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
        lent = self.averages.in_place_of_weights() if self.averages else nullcontext()
        with nvtx_range("evaluate"), self.clock.pause("evaluation"), lent:
            record = self.evaluator.evaluate(self.prepared.evaluation, self.state.step, self.stop)
        if record.loss < self.state.best_loss:
            self.state.best_loss, self.state.best_step = record.loss, record.step
        record = replace(record, best_loss=self.state.best_loss, best_step=self.state.best_step)
        for callback in self.callbacks:
            callback.on_evaluation_end(record)
        self.last_evaluation = record
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
        count = self.settings.grad_accum_steps
        batches, self.origins = take_batches(self.source, count, self.world.device, step)
        self.clock.mark()
        return batches

    def _accumulate(self, batches: list[Batch]) -> StepTotals:
        """Run forward and backward; where that compiles first, which takes minutes, a signal cuts it short."""
        is_first_compiled = self.ranks_at_start is not None
        with self.stop.interruptible() if is_first_compiled else nullcontext():
            totals = self.accumulator.accumulate(self.state.step + 1, batches, self.stop.received)
        self.ranks_at_start = None
        self.clock.mark()
        return totals

    def _clip(self, totals: StepTotals) -> tuple[Tensor, Verdict]:
        """Turn gradients of sums into the gradient of the mean loss, limit its norm, and judge the step.

        Returns the norm before clipping, and whether the step may reach the parameters; neither is read here.
        """
        self.precision.unscale(self.state.optimizer)
        scale_gradients(self.parameters, self.world.size / totals.weight)
        grad_norm = clip_gradients(self.parameters, self.settings.grad_clip_norm)
        for callback in self.callbacks:
            callback.on_gradients_ready(self.state.step + 1, grad_norm)
        return grad_norm, self.state.guard.judge(totals.loss, grad_norm)

    def _step(self, verdict: Verdict) -> None:
        """Update the parameters at this step's learning rate, unless the step is bad; it counts in any case."""
        set_learning_rate(self.state.optimizer, self.settings.schedule(self.state.step + 1))
        with nvtx_range("optimizer"):
            step_if(self.state.optimizer, verdict.is_good)
            self.precision.end_step()
            self.state.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        if self.averages:
            self.averages.update(self.state.step)

    def _record(self, totals: StepTotals, grad_norm: Tensor, verdict: Verdict) -> Signals | None:
        """Report what has arrived of this step's numbers, or of the last one's; returns a stop signal."""
        numbers, marks = send_numbers(totals, grad_norm, verdict), self.clock.end_step()
        rates = learning_rates(self.state.optimizer)
        with self._naming_last_checkpoint():
            return self.reporter.add(StepInFlight(self.state.step, totals, numbers, marks, rates, self.origins))

    def _finish_reports(self) -> None:
        """Wait for the numbers of all steps done: nothing is evaluated or saved that was not judged."""
        with self._naming_last_checkpoint():
            self.reporter.report()

    @contextmanager
    def _naming_last_checkpoint(self) -> Iterator[None]:
        try:
            yield
        except NonFiniteLoss as error:
            newest = gather_objects(self.saver.finish() if self.saver else None, self.world)[0]
            known = f"the last good checkpoint is {newest}" if newest else "no checkpoint was saved yet"
            raise NonFiniteLoss(f"{error}; {known}") from None

    def _maybe_evaluate(self, stop_signal: Signals | None) -> Signals | None:
        """Evaluate if it is time to and no signal came; returns the signal that came until now."""
        state = self.state
        is_due = bool(self.evaluator and self.evaluator.validation.is_due(state.step, self.max_steps))
        state.is_evaluation_due = is_due  # and made up for after resuming, should a signal prevent it now
        if stop_signal is not None or not is_due:
            return stop_signal
        self._finish_reports()
        try:
            self.evaluate()
        except Interrupted as interruption:
            return interruption.signal
        state.is_evaluation_due = False
        return None

    def _maybe_save(self, stop_signal: Signals | None) -> None:
        if self.saver:
            step, every = self.state.step, self.settings.save_every
            is_last = step == self.max_steps or stop_signal is not None
            is_kept_as_best = step == self.state.best_step and self.checkpoints.retention.keep_best > 0
            is_due = is_last or is_kept_as_best or (every > 0 and step % every == 0)
            if is_due:
                self._finish_reports()
            with self.clock.pause("checkpoint"):
                self.saver.poll()
                if is_due:
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
