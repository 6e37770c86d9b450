"""Measure the loss on validation batches, whose number may differ from rank to rank."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import nn

from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects, keep_in_step
from trainkit.distributed.strategy import PreparedModel
from trainkit.metrics import EvaluationRecord
from trainkit.protocols import Batch, Objective, StepContext
from trainkit.signals import Interrupted, StopSignals
from trainkit.training.accumulate import count_rows, move_to
from trainkit.training.precision import Precision
from trainkit.training.seeding import make_generator


@dataclass(frozen=True, slots=True)
class Validation:
    """Say what to evaluate on, and when."""

    make_batches: Callable[[], Iterable[Batch]]
    """Start this rank's share of the validation set from its beginning; may be short or empty on some ranks."""
    every: int
    """Steps between evaluations; the last step is always followed by one. 0 means only then."""
    max_batches: int
    """Micro-batches per rank and evaluation, at most."""

    def is_due(self, step: int, max_steps: int) -> bool:
        """Tell whether `step` is followed by an evaluation."""
        return step == max_steps or (self.every > 0 and step % self.every == 0)


class Evaluator:
    """Evaluate the same batches with the same noise each time, so that only the model makes a difference."""

    def __init__(self, validation: Validation, objective: Objective, world: World, precision: Precision, seed: int):
        self.validation = validation
        self.objective = objective
        self.world = world
        self.precision = precision
        self.seed = seed

    def check_not_empty(self) -> None:
        """Raise ValueError before training begins if no rank has a validation batch."""
        has_batch = next(iter(self.validation.make_batches()), None) is not None
        if not any(gather_objects(has_batch, self.world)):
            raise ValueError(
                "the validation set holds less than one row: give it more data (a larger split), make rows shorter, "
                "or skip validation"
            )

    @torch.no_grad()
    def evaluate(self, prepared: PreparedModel, step: int, stop: StopSignals) -> EvaluationRecord:
        """Return the mean loss over all ranks' batches, of which each rank may have any number.

        Raises ValueError if there is nothing to evaluate on, Interrupted on all ranks if one was told to stop.
        """
        model = prepared.evaluation
        was_training = model.training
        model.eval()
        sums = {"loss": 0.0, "weight": 0.0, "batches": 0.0}
        try:
            for index, (batch, is_own) in enumerate(self._batches(prepared, stop)):
                self._add(sums if is_own else dict(sums), model, index, move_to(batch, self.world.device))
            stop_signal = stop.received if prepared.is_sharded else None
        except Interrupted as interruption:
            stop_signal = interruption.signal
        finally:
            model.train(was_training)
        by_rank = gather_objects((sums, stop_signal), self.world)
        stop_signal = max((wish for _, wish in by_rank if wish is not None), default=None)
        if stop_signal is not None:
            raise Interrupted(stop_signal)
        return self._combine([sums for sums, _ in by_rank], step)

    def _batches(self, prepared: PreparedModel, stop: StopSignals) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches to run, and whether they count.

        A signal ends this at once, with Interrupted. But each forward pass of a sharded model needs every rank: then
        ranks whose batches have ended, or that were told to stop, run along on those of others.
        """
        batches = islice(self.validation.make_batches(), self.validation.max_batches)
        if prepared.is_sharded:
            yield from keep_in_step(takewhile(lambda _: stop.received is None, batches), self.world)
            return
        with stop.interruptible():
            for batch in batches:
                yield batch, True

    def _add(self, sums: dict[str, float], model: nn.Module, index: int, batch: Batch) -> None:
        rows = count_rows(batch)
        context = StepContext(
            rng=make_generator(self.world.device, self.seed, "evaluation", index),
            first_row=self.world.rank * rows,
            total_rows=self.world.size * rows,
        )
        with self.precision.autocast():
            output = self.objective(model, batch, context)
        found = {"loss": output.loss_sum, "weight": output.weight, **output.metrics}
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        sums["batches"] += 1

    def _combine(self, sums_by_rank: list[dict[str, float]], step: int) -> EvaluationRecord:
        names = dict.fromkeys(name for sums in sums_by_rank for name in sums)
        totals = {name: sum(sums.get(name, 0.0) for sums in sums_by_rank) for name in names}
        batches, weight = int(totals.pop("batches")), totals.pop("weight")
        if weight == 0:
            raise ValueError(
                f"nothing to evaluate on after step {step}: {batches} validation batches with no target in them; "
                "give it more data, or skip validation"
            )
        means = {name: total / weight for name, total in totals.items()}
        return EvaluationRecord(step=step, loss=means.pop("loss"), weight=weight, batches=batches, metrics=means)
