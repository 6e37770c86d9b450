"""Short trials instead of training: which micro-batch fits into memory, which learning rate to train with.

They train for a few steps with the settings of the run, but open no run folder: nothing is left but their report.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cli.callbacks import UNIT
from cli.output import prepare_streams, say
from cli.task import open_task, trainer_settings
from cli.tokens import load_tokenizer
from config.io import dump_toml
from config.roots import TrainConfig
from trainkit.callbacks import Callback
from trainkit.distributed.launch import LaunchSettings
from trainkit.distributed.parallel import World, choose_device, is_started_by_torchrun
from trainkit.environment import describe_environment
from trainkit.finders.batch_size import BatchSizes, Candidate, find_batch_size
from trainkit.finders.learning_rate import LearningRateSweep, RangeTest, RangeWatch, run_range_test
from trainkit.finders.memory import Trial, memory_to_use_mb, try_in_child
from trainkit.logging.console import shorten
from trainkit.metrics import StepRecord
from trainkit.report.page import write_page
from trainkit.trainer import Trainer
from trainkit.training.schedule import LearningRateOfStep, Schedule

RANGE_TEST_STEPS = 150
_TRIAL_STEPS = 3


@contextmanager
def open_trainer(
    world: World, config: TrainConfig, schedule: LearningRateOfStep, callback: Callback
) -> Iterator[Trainer]:
    """Yield a trainer of the configuration that follows `schedule`, writes nothing and evaluates nothing."""
    tokenizer = load_tokenizer(config.data.tokenizer)
    with open_task(config, tokenizer, world) as task:
        settings = trainer_settings(config, task)
        settings = replace(settings, schedule=schedule, on_nonfinite="stop", spike_deviations=0.0)
        yield Trainer(task, settings, world, [callback])


# ---- the largest micro-batch


class _Timing(Callback):
    """Keep the throughput of each step."""

    def __init__(self):
        self.rates: list[float] = []

    def on_step_end(self, record: StepRecord) -> None:
        self.rates.append(record.weight_per_second)


def run_trial(config: TrainConfig) -> float:
    """Take a few steps in this process and return the throughput of the later ones [tokens per second]."""
    prepare_streams()
    timing = _Timing()
    world = World(device=choose_device(config.training.device))
    schedule = Schedule("constant", config.optimizer.max_learning_rate, max_steps=_TRIAL_STEPS, warmup_steps=2)
    with open_trainer(world, config, schedule, timing) as trainer:
        trainer.fit()
    return statistics.median(timing.rates[1:])


def print_batch_size(config: TrainConfig, launch: LaunchSettings, limit_gb: float | None) -> int:
    """Find the largest micro-batch that fits and say how to use it; returns the exit code.

    Raises ValueError under torchrun: one process finds out for all.
    """
    if is_started_by_torchrun():
        raise ValueError("--find-batch-size tries in one process for all: start it without torchrun")
    device = choose_device(launch.device)
    limit_mb = limit_gb * 1000 if limit_gb else memory_to_use_mb(device)
    if device.type == "cpu" and not limit_gb:
        limit_mb /= launch.nproc_per_node  # they share the machine's memory
    rows = config.training.batch_size * config.training.grad_accum_steps
    say(f"{rows} rows per process and step, {limit_mb / 1000:.1f} GB of memory for each of {launch.nproc_per_node}")
    say(f"{'micro-batch':>11}{'accumulation':>14}{'peak memory':>13}{'tokens/s':>10}")

    def attempt(rows: int, accumulation: int) -> Trial:
        trial = try_in_child(run_trial, (cut_into(config, rows, accumulation),), limit_mb, device)
        say(format_candidate(Candidate(rows, accumulation, trial)))
        return trial

    return report_batch_sizes(find_batch_size(rows, config.training.batch_size, attempt), config)


def cut_into(config: TrainConfig, rows: int, accumulation: int) -> TrainConfig:
    """Return the configuration of a trial.

    It takes two micro-batches a step where training takes more: gradients are then held during a forward pass, which
    is when memory is fullest.
    """
    training = config.training.model_copy(update={"batch_size": rows, "grad_accum_steps": min(2, accumulation)})
    return config.model_copy(update={"training": training})


def format_candidate(each: Candidate) -> str:
    """Return a line of the table."""
    trial = each.trial
    memory = "killed" if trial.peak_mb is None else f"{trial.peak_mb / 1000:.2f} GB"
    verdict = f"{shorten(trial.value):>10}" if trial.fits else f"{'-':>10}  does not fit"
    return f"{each.rows:>11}{each.accumulation:>14}{memory:>13}{verdict}"


def report_batch_sizes(found: BatchSizes, config: TrainConfig) -> int:
    """Say what to set; returns 1 if not even one row fits."""
    best = found.best
    if best is None:
        say("not even one row fits: shorten model.context_length, or make the model smaller")
        return 1
    say(
        f"\nlargest micro-batch that fits: {best.rows}; the global batch stays the same with\n"
        f"  --set training.batch_size={best.rows} --set training.grad_accum_steps={best.accumulation}"
    )
    fastest = max((each for each in found.candidates if each.trial.fits), key=lambda each: each.trial.value)
    if fastest.trial.value > 1.05 * best.trial.value:
        say(f"but {fastest.rows} x {fastest.accumulation} was faster, at {shorten(fastest.trial.value)} {UNIT}/s")
    return 0


# ---- the learning rate


def plot_learning_rates(world: World, config: TrainConfig, page: Path) -> int:
    """Raise the learning rate until the loss explodes, say what to make of it, and draw it; returns the exit code."""
    prepare_streams()
    highest = config.optimizer.max_learning_rate
    sweep = LearningRateSweep(highest / 1000, highest * 100, RANGE_TEST_STEPS)
    if world.is_first:
        say(f"{sweep.max_steps} steps, learning rate from {sweep.low:.2g} to {sweep.high:.2g}")
    watch = RangeWatch()
    with open_trainer(world, config, sweep, watch) as trainer:
        found = run_range_test(trainer, watch)
    if world.is_first:
        write_page(page, "lr_range.html", describe_range_test(found, config, world))
        say(f"{found.describe()}\nplotted in {page}")
    return 0


def describe_range_test(found: RangeTest, config: TrainConfig, world: World) -> dict:
    """Return what the page shows."""
    rows = config.training.batch_size * config.training.grad_accum_steps * world.size
    return {
        "about": f"{config.objective.name.replace('_', ' ')}, {config.optimizer.name}, "
        f"{rows} x {config.model.context_length} tokens per step",
        "words": found.describe(),
        "rates": found.rates,
        "losses": found.losses,
        "smoothed": found.smoothed,
        "steepest": found.steepest_rate,
        "lowest": found.lowest_rate,
        "diverged": found.diverged_rate,
        "config": dump_toml(config),
        "environment": describe_environment(world),
    }
