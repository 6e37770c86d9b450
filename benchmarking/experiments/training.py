"""Train a small model in this process and measure it on the way: what every experiment does many times.

Nothing is saved; a measurement goes into a list. Loop, data and objectives are those of transformerlm-train.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cli.task import open_task, trainer_settings
from cli.tokens import load_tokenizer
from config.io import load_config
from config.roots import TrainConfig
from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World, choose_device
from trainkit.metrics import StepRecord
from trainkit.trainer import Trainer
from transformerlm.checkpoint import LoadedModel
from transformerlm.models.transformer import TransformerLM

RESOURCES = Path("config/resources/experiments")


@dataclass(frozen=True, slots=True)
class Arm:
    """One curve of a figure: a name, and what it changes in the experiment's configuration."""

    name: str
    overrides: tuple[str, ...]


DIFFUSION = ("objective.noise_epsilon=0.1", "objective.head=gathered")
AUTOREGRESSIVE = Arm("autoregressive", ("objective.name=autoregressive",))
MASKED = Arm("masked diffusion", ("objective.name=masked_diffusion", *DIFFUSION))


def block_arm(block_length: int) -> Arm:
    """Return block diffusion with blocks of this length, its masks drawn with exact counts."""
    changes = ("mask_draw=exact_count", "head=gathered", f"block_length={block_length}")
    return Arm(f"blocks of {block_length}", ("objective.name=block_diffusion", *(f"objective.{c}" for c in changes)))


class MeasureAtSteps(Callback):
    """Call `measure` after certain steps, with the model in evaluation mode."""

    def __init__(self, model: TransformerLM, steps: Collection[int], measure: Callable[[int], None]) -> None:
        self.model, self.steps, self.measure = model, set(steps), measure

    def on_step_end(self, record: StepRecord) -> None:
        """Measure if it is time."""
        if record.step in self.steps:
            self.model.eval()
            with torch.no_grad():
                self.measure(record.step)
            self.model.train()


def load_arm(config_name: str, arm: Arm, seed: int, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration of one run; the seed decides weights, masks and the order of the data."""
    seeds = (f"training.seed={seed}", f"data.shuffle_seed={seed}")
    return load_config(RESOURCES / f"{config_name}.toml", TrainConfig, [*arm.overrides, *overrides, *seeds])


def train_and_measure(
    config: TrainConfig, steps: Collection[int] = (), measure: Callable[[LoadedModel, int], None] | None = None
) -> LoadedModel:
    """Train from scratch in this process; `measure(model, step)` is called after each of `steps`."""
    tokenizer = load_tokenizer(config.data.tokenizer)
    world = World(device=choose_device(config.training.device))
    with open_task(config, tokenizer, world) as task:
        loaded = LoadedModel(task.model, tokenizer, config.objective.name, folder=None)
        callbacks = [] if measure is None else [MeasureAtSteps(task.model, steps, lambda step: measure(loaded, step))]
        result = Trainer(task, trainer_settings(config, task), world, callbacks).fit()
    if result.stop_signal is not None:  # a run that was stopped is no run
        raise SystemExit(result.exit_code)
    task.model.eval()
    return loaded


def log_spaced(last: int, per_doubling: int = 1, first: int = 25) -> list[int]:
    """Return steps from `first` to `last`, each a constant factor after the one before."""
    steps, step = {last}, float(first)
    while step < last:
        steps.add(round(step))
        step *= 2 ** (1 / per_doubling)
    return sorted(steps)
