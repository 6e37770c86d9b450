"""Turn finished steps into records, and tell the callbacks; stop where a step was bad.

A GPU works behind the host. The numbers of a step travel back while the next one is being handed over, so that nothing
waits; they are read one step late, or at once where the step is followed by a line in the log, an evaluation or a
checkpoint. On a CPU they are there at once.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from signal import Signals

import torch
from torch import Tensor

from trainkit.callbacks import Callback
from trainkit.clock import StepClock, StepMarks
from trainkit.distributed.reduce import gather_objects
from trainkit.errors import NonFiniteLoss
from trainkit.hardware import Utilisation, peak_memory_mb
from trainkit.metrics import StepRecord
from trainkit.settings import TrainerSettings
from trainkit.state import TrainState
from trainkit.training.accumulate import StepTotals, received_signal
from trainkit.training.guard import Verdict
from trainkit.training.precision import Precision

MAX_SKIPPED_IN_A_ROW = 20


class Readback:
    """Numbers on their way from the device to the host."""

    def __init__(self, values: Tensor):
        self._host, self._arrival = values, None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def wait(self) -> list[float]:
        """Return the numbers once they are there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._host.tolist()


@dataclass(frozen=True, slots=True)
class StepInFlight:
    """A step that was handed to the device."""

    step: int
    totals: StepTotals
    numbers: Readback
    """grad_norm, the running mean of the loss, skipped steps, those in a row, then the sums of `totals`."""
    marks: StepMarks
    learning_rates: Mapping[str, float]
    origins: Sequence[str]
    """Where this rank's micro-batches came from."""


def send_numbers(totals: StepTotals, grad_norm: Tensor, verdict: Verdict) -> Readback:
    """Start the numbers of a step on their way to the host."""
    head = torch.stack([grad_norm.double(), verdict.loss_ema, verdict.skipped_steps, verdict.skipped_in_a_row])
    return Readback(torch.cat([head, totals.sums]))


class StepReporter:
    """Keep the steps whose numbers have not arrived, and report those that have, in order."""

    def __init__(
        self,
        settings: TrainerSettings,
        state: TrainState,
        precision: Precision,
        utilisation: Utilisation,
        callbacks: Sequence[Callback],
    ):
        """Add up what was seen in `state`; a loss-scaling `precision` makes infinite gradients a normal event."""
        self.settings = settings
        self.state = state
        self.world = state.world
        self.precision = precision
        self.utilisation = utilisation
        self.callbacks = callbacks
        self.clock = StepClock(self.world.device)
        self._in_flight: deque[StepInFlight] = deque()

    def add(self, step: StepInFlight) -> Signals | None:
        """Take in a step and report those before it, or all if it is to be logged; returns a stop signal."""
        self._in_flight.append(step)
        return self.report(keep=1 if self.world.device.type == "cuda" and not self._is_logged(step.step) else 0)

    def report(self, keep: int = 0) -> Signals | None:
        """Report all but the newest `keep` steps, waiting for their numbers; returns a stop signal that came with one.

        Raises NonFiniteLoss if a step was bad and the settings say stop, ValueError if one had no target at all.
        """
        stop_signal = None
        while len(self._in_flight) > (keep if stop_signal is None else 0):
            stop_signal = self._report_one(self._in_flight.popleft()) or stop_signal
        return stop_signal

    def _report_one(self, done: StepInFlight) -> Signals | None:
        grad_norm, loss_ema, skipped, in_a_row, *rest = done.numbers.wait()
        sums, flags = rest[: len(done.totals.names)], rest[len(done.totals.names) :]
        loss_sum, weight = sums[:2]
        self._check(done, sums, grad_norm, in_a_row)
        self.state.weight_seen += weight
        self.state.elapsed_s = self.clock.elapsed_s()
        times = done.marks.read()
        self.clock.count(times)
        record = StepRecord(
            step=done.step,
            loss=loss_sum / weight,
            loss_ema=loss_ema,
            learning_rate=self.settings.schedule(done.step),
            learning_rates=done.learning_rates,
            grad_norm=grad_norm,
            skipped_steps=int(skipped),
            weight=weight,
            weight_seen=self.state.weight_seen,
            times=times,
            pauses_ms=self.clock.pauses_ms(),
            data_wait_share=self.clock.data_wait_share,
            elapsed_s=self.state.elapsed_s,
            mfu=self.utilisation.mfu(weight / (times.step_ms / 1000.0)),
            peak_memory_mb=peak_memory_mb(self.world.device),
            metrics=done.totals.names.divide(sums),
        )
        stop_signal = received_signal(flags)
        self._tell(record, is_logged=self._is_logged(done.step) or stop_signal is not None)
        return stop_signal

    def _tell(self, record: StepRecord, is_logged: bool) -> None:
        if is_logged:
            self.precision.check_scale()
            extra = {name: value for hook in self.callbacks for name, value in hook.report_metrics(record.step).items()}
            record = replace(record, metrics={**record.metrics, **extra})
            self.clock.forget_pauses()
        for callback in self.callbacks:
            callback.on_step_end(record)
            if is_logged:
                callback.on_log(record)

    def _is_logged(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step == self.settings.schedule.max_steps

    def _check(self, done: StepInFlight, sums: Sequence[float], grad_norm: float, in_a_row: float) -> None:
        loss_sum, weight = sums[:2]
        if weight <= 0 and math.isfinite(loss_sum):
            raise ValueError(
                f"step {done.step}: the weight of the global batch is {weight:g}, so there is nothing "
                f"to learn from; this rank's rows came from {'; '.join(done.origins)}"
            )
        problem = None
        if not math.isfinite(loss_sum + weight):
            problem = f"the loss is {loss_sum}"
        elif not math.isfinite(grad_norm) and not self.precision.is_scaled:
            problem = f"the gradient norm is {grad_norm}"
        if problem and self.settings.on_nonfinite == "stop":
            raise NonFiniteLoss(self._describe(done, problem))
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            problem = problem or f"loss {loss_sum / weight:.4g} and gradient norm {grad_norm:.4g} are spikes"
            raise NonFiniteLoss(self._describe(done, f"{problem}, and {in_a_row:.0f} steps in a row were skipped"))

    def _describe(self, done: StepInFlight, problem: str) -> str:
        """Say which micro-batches were bad, on all ranks (which all come here, since the totals are shared)."""
        bad = [not math.isfinite(loss.item()) for loss in done.totals.local_losses]
        suspects = [origin for origin, is_bad in zip(done.origins, bad, strict=True) if is_bad or not any(bad)]
        by_rank = gather_objects((any(bad), suspects), self.world)
        guilty = [(rank, origins) for rank, (is_bad, origins) in enumerate(by_rank) if is_bad]
        guilty = guilty or [(rank, origins) for rank, (_, origins) in enumerate(by_rank)]
        came_from = "; ".join(f"rank {rank}: {', '.join(origins)}" for rank, origins in guilty)
        return f"step {done.step}: {problem}; the batch came from {came_from}. Stopped before the update"
