"""Measure the loss on validation batches, whose number may differ from rank to rank."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects, sum_over_ranks
from trainkit.metrics import EvaluationRecord
from trainkit.protocols import Batch, Objective, StepContext, StepOutput
from trainkit.signals import STOP_SIGNALS, Interrupted, StopSignals
from trainkit.training.accumulate import count_rows, move_to, received_signal
from trainkit.training.precision import Precision
from trainkit.training.seeding import make_generator
from trainkit.training.sums import MetricNames


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
    def evaluate(self, model: nn.Module, step: int, stop: StopSignals) -> EvaluationRecord:
        """Return the mean loss over all ranks' batches; `model` must not be wrapped for DDP.

        Ranks may have any number of batches. Raises ValueError if there is nothing to evaluate on, Interrupted on all
        ranks if one was told to stop.
        """
        was_training = model.training
        model.eval()
        names, totals = None, torch.zeros(0)
        try:
            # Alone, a signal may cut a batch short; of several ranks, none may leave the others waiting in one.
            with stop.interruptible() if self.world.size == 1 else nullcontext():
                for index, (batch, is_counted) in enumerate(self._rounds(stop)):
                    output = self._run(model, index, move_to(batch, self.world.device))
                    names = names or MetricNames.of(output)
                    found = pad(names.pack(output, self.world.device), (0, 1), value=1.0)  # and one batch
                    found = found if is_counted else torch.zeros_like(found)
                    totals = found if index == 0 else totals + found
        finally:
            model.train(was_training)
        return self._combine(names, totals, step)

    def _rounds(self, stop: StopSignals) -> Iterator[tuple[Batch, bool]]:
        """Yield as many batches on every rank as the rank with the most of them has, and whether each counts.

        A sharded model gathers its weights from all ranks in each forward pass. So a rank that has run out goes on
        with its first batch, or, if it never had one, with that of another rank.
        """
        batches = iter(islice(self.validation.make_batches(), self.validation.max_batches))
        spare: Batch | None = None
        for index in count():
            batch = next(batches, None)
            votes = [float(batch is not None), *(float(stop.received == number) for number in STOP_SIGNALS)]
            ranks, *flags = sum_over_ranks(torch.tensor(votes, device=self.world.device), self.world).tolist()
            stop_signal = received_signal(flags)
            if stop_signal is not None:
                raise Interrupted(stop_signal)
            if not ranks:
                return
            if index == 0:
                spare = batch if ranks == self.world.size else self._lend(batch)
            yield (spare, False) if batch is None else (batch, True)

    def _lend(self, batch: Batch | None) -> Batch:
        lent_by_rank = gather_objects(batch, self.world)  # every rank must take part
        return next(lent for lent in (batch, *lent_by_rank) if lent is not None)

    def _run(self, model: nn.Module, index: int, batch: Batch) -> StepOutput:
        rows = count_rows(batch)
        context = StepContext(
            rng=make_generator(self.world.device, self.seed, "evaluation", index),
            first_row=self.world.rank * rows,
            total_rows=self.world.size * rows,
        )
        with self.precision.autocast():
            return self.objective(model, batch, context)

    def _combine(self, names: MetricNames | None, totals: Tensor, step: int) -> EvaluationRecord:
        *sums, batches = sum_over_ranks(totals, self.world).tolist() if names else (0.0, 0.0, 0)
        loss_sum, weight = sums[:2]
        if weight == 0:
            raise ValueError(
                f"nothing to evaluate on after step {step}: {int(batches)} validation batches with no target in them; "
                "give it more data, or skip validation"
            )
        return EvaluationRecord(step, loss_sum / weight, weight, int(batches), names.divide(sums))
