"""The training loop: fetch, accumulate, clip, step, record, maybe evaluate, maybe save.

The loop knows tensors and sums. What a batch is, what the loss is and what a weight counts is the caller's business.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from signal import Signals

import torch
from torch import Tensor

from profiling.nvtx import nvtx_range
from trainkit.callbacks import Callback
from trainkit.checkpointing.manager import CheckpointManager, verify_checkpoint
from trainkit.checkpointing.rng import seed_process
from trainkit.distributed.parallel import World, wrap_model
from trainkit.errors import NonFiniteLoss
from trainkit.evaluation import Evaluator, Validation
from trainkit.hardware import Utilisation
from trainkit.metrics import EvaluationRecord
from trainkit.protocols import Batch
from trainkit.reporting import StepInFlight, StepReporter, send_numbers
from trainkit.settings import Task, TrainerSettings, TrainResult
from trainkit.signals import StopSignals
from trainkit.state import TrainState
from trainkit.training.accumulate import (
    Accumulator,
    StepTotals,
    clip_gradients,
    count_rows,
    move_to,
    scale_gradients,
)
from trainkit.training.guard import StepGuard, Verdict, step_if
from trainkit.training.optim import build_optimizer, learning_rates, trained_parameters
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
        """Prepare the model (device, compile, DDP) and the optimizer; without `checkpoints` nothing is saved.

        The model is moved and trained in place; its weights are made those of rank 0.
        """
        self.settings = settings
        self.world = world or World()
        self.max_steps = settings.schedule.max_steps
        self.checkpoints = checkpoints
        self.callbacks = [hook for hook in callbacks if self.world.is_first or hook.runs_on_every_rank]
        assert len({type(hook) for hook in callbacks}) == len(callbacks), "checkpoints tell callbacks apart by class"
        self.source = task.source
        self.model = task.model.to(self.world.device)
        self.compiled = torch.compile(self.model) if settings.compile else self.model
        self.parameters = trained_parameters(self.model)
        self.precision = Precision(settings.precision, self.world.device)
        self.state = TrainState(
            model=self.model,
            optimizer=build_optimizer(self.model, settings.optimizer),
            scaler=self.precision.scaler,
            source=task.source,
            guard=StepGuard(self.world.device, settings.spike_deviations),
            callbacks={type(hook).__name__: hook for hook in self.callbacks},
            world=self.world,
        )
        wrapped = wrap_model(self.compiled, self.world)
        self.accumulator = Accumulator(wrapped, task.objective, self.world, self.precision, settings.seed)
        self.evaluator = (
            Evaluator(validation, task.objective, self.world, self.precision, settings.seed) if validation else None
        )
        self.utilisation = Utilisation.of(
            self.world.device, self.world.size, self.precision.dtype, settings.flops_per_weight
        )
        self.reporter = StepReporter(settings, self.state, self.precision, self.utilisation, self.callbacks)
        self.clock = self.reporter.clock
        self.origins: list[str] = []
        self.last_saved: Path | None = None
        self.last_evaluation: EvaluationRecord | None = None
        seed_process(settings.seed, self.world.rank)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint: call this on every rank, before `fit`.

        Raises CheckpointError if it is damaged, or belongs to another model or number of ranks.
        """
        verify_checkpoint(folder)
        self.state.read(folder)
        self.last_saved = folder
        for callback in self.callbacks:
            callback.on_checkpoint_loaded(self.state.step, folder)

    def fit(self) -> TrainResult:
        """Train to the last step, or until a signal; evaluate, report and save on the way.

        Raises NonFiniteLoss, with no bad gradient applied, CheckpointSaveError if a checkpoint cannot be written.
        """
        stop_signal = None
        with StopSignals() as stop, ExitStack() as on_exit:
            on_exit.push(self._finish)
            self._start()
            while self.state.step < self.max_steps and stop_signal is None:
                batches = self._fetch()
                totals = self._accumulate(batches, stop.received)
                grad_norm, verdict = self._clip(totals)
                self._step(verdict)
                stop_signal = self._record(totals, grad_norm, verdict)
                self._maybe_evaluate(stop_signal)
                self._maybe_save(stop_signal)
        return TrainResult(self.state.step, self.last_saved, self.last_evaluation, stop_signal)

    def evaluate(self) -> EvaluationRecord:
        """Evaluate now and tell the callbacks; every rank must call this."""
        assert self.evaluator, "evaluate() needs a Validation"
        for callback in self.callbacks:
            callback.on_evaluation_start(self.state.step)
        with nvtx_range("evaluate"), self.clock.pause("evaluation"):
            record = self.evaluator.evaluate(self.compiled, self.state.step)
        if record.loss < self.state.best_loss:
            self.state.best_loss, self.state.best_step = record.loss, record.step
        record = replace(record, best_loss=self.state.best_loss, best_step=self.state.best_step)
        for callback in self.callbacks:
            callback.on_evaluation_end(record)
        self.last_evaluation = record
        return record

    def save(self) -> Path | None:
        """Save a checkpoint now; every rank must call this. Returns its folder on rank 0."""
        assert self.checkpoints, "save() needs a CheckpointManager"
        ranks = self.state.collect_ranks()
        if not self.world.is_first:
            return None
        with nvtx_range("save"), self.clock.pause("checkpoint"):
            self.last_saved = self.checkpoints.save(self.state.step, lambda folder: self._write(folder, ranks))
        for callback in self.callbacks:
            callback.on_checkpoint_saved(self.state.step, self.last_saved)
        return self.last_saved

    def _start(self) -> None:
        if self.evaluator:
            self.evaluator.check_not_empty()
        self.model.train()
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
        self.clock.mark()
        return batches

    def _accumulate(self, batches: list[Batch], stop_signal: Signals | None) -> StepTotals:
        totals = self.accumulator.accumulate(self.state.step + 1, batches, stop_signal)
        self.clock.mark()
        return totals

    def _clip(self, totals: StepTotals) -> tuple[Tensor, Verdict]:
        """Turn gradients of sums into the gradient of the mean loss, limit its norm, and judge the step.

        Returns the norm before clipping, and whether the step may reach the parameters; neither is read here.
        """
        self.precision.unscale(self.state.optimizer)
        scale_gradients(self.parameters, self.world.size / totals.weight)
        grad_norm = clip_gradients(self.parameters, self.settings.grad_clip_norm).detach()
        for callback in self.callbacks:
            callback.on_gradients_ready(self.state.step + 1, grad_norm)
        return grad_norm, self.state.guard.judge(totals.loss, grad_norm)

    def _step(self, verdict: Verdict) -> None:
        """Update the parameters at this step's learning rate, unless the step is bad; it counts in any case."""
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.settings.schedule(self.state.step + 1)
        with nvtx_range("optimizer"):
            step_if(self.state.optimizer, verdict.is_good)
            self.precision.end_step()
            self.state.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1

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
            newest = self.last_saved or (self.checkpoints.latest() if self.checkpoints else None)
            known = f"the last good checkpoint is {newest}" if newest else "no checkpoint was saved yet"
            raise NonFiniteLoss(f"{error}; {known}") from None

    def _maybe_evaluate(self, stop_signal: Signals | None) -> None:
        if self.evaluator and stop_signal is None and self.evaluator.validation.is_due(self.state.step, self.max_steps):
            self._finish_reports()
            self.evaluate()

    def _maybe_save(self, stop_signal: Signals | None) -> None:
        step, every = self.state.step, self.settings.save_every
        is_due = step == self.max_steps or stop_signal is not None or (every > 0 and step % every == 0)
        if self.checkpoints and is_due:
            self._finish_reports()
            self.save()
        if stop_signal is not None:
            for callback in self.callbacks:
                callback.on_stop(step, stop_signal, self.last_saved)

    def _write(self, folder: Path, ranks: list[dict]) -> None:
        self.state.write(folder, ranks)
        for callback in self.callbacks:
            callback.write_extras(folder)

    def _finish(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        for callback in self.callbacks:
            if error is not None:
                callback.on_error(self.state.step, error)
            callback.on_train_end(self.state.step)
