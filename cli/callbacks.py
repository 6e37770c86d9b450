"""What accompanies a training run: loggers, samples, the report, and what every checkpoint needs to be used alone."""

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn

from cli.resuming import CONFIG_FILE
from cli.sampling import SamplingCallback
from config.io import dump_toml
from config.roots import TrainConfig
from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World
from trainkit.environment import describe_environment
from trainkit.logging.console import ConsoleLogger
from trainkit.logging.jsonl import JsonlLogger
from trainkit.logging.step_trace import StepTrace
from trainkit.logging.tensorboard import TensorboardLogger
from trainkit.logging.wandb import WandbLogger, WandbSettings
from trainkit.norms import NormRecorder
from trainkit.report.run_report import FiguresTable, ReportFacts, RunReport
from transformerlm.checkpoint_description import write_description
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer

UNIT = "tokens"


class DescribeModel(Callback):
    """Add to every checkpoint what is needed to use it without the training run."""

    def __init__(self, config: TrainConfig, shape: ModelShape, tokenizer: Tokenizer) -> None:
        self.config, self.shape, self.tokenizer = config, shape, tokenizer

    def write_extras(self, folder: Path) -> None:
        """Write the model's description, the tokenizer and the configuration."""
        write_description(folder, self.shape, self.config.objective.name, self.tokenizer)
        (folder / CONFIG_FILE).write_text(dump_toml(self.config), encoding="utf-8")


def make_callbacks(
    config: TrainConfig,
    folder: Path,
    tokenizer: Tokenizer,
    model: TransformerLM,
    world: World,
    lend: Callable[[], AbstractContextManager[TransformerLM | None]],
) -> list[Callback]:
    """Return what accompanies the run; metrics.jsonl always does. `lend` gives the model to sample from."""
    callbacks: list[Callback] = [
        DescribeModel(config, model.shape, tokenizer),
        JsonlLogger(folder / "metrics.jsonl", UNIT),
    ]
    if "console" in config.logging.backends:
        callbacks.append(ConsoleLogger(UNIT, resume_command(config, folder)))
    if "wandb" in config.logging.backends:
        callbacks.append(WandbLogger(make_wandb_settings(config, folder, world), folder, UNIT))
    if "tensorboard" in config.logging.backends:
        callbacks.append(TensorboardLogger(folder / "tensorboard", UNIT))
    if config.training.profile_steps:
        first, last = config.training.profile_steps
        callbacks.append(StepTrace(folder, (first, last), () if config.training.compile else model.blocks))
    if config.logging.weight_norms or config.logging.activation_norms:
        watched = config.logging.weight_norms, config.logging.activation_norms
        callbacks.append(NormRecorder(name_parts(model), config.logging.log_every, *watched))
    if config.sampling.every and config.sampling.prompts:
        callbacks.append(SamplingCallback(lend, tokenizer, config, folder, world.is_first))
    if config.logging.report:
        callbacks.append(RunReport(folder, make_report_facts(config, folder, model, world)))
    return callbacks


def resume_command(config: TrainConfig, folder: Path) -> str:
    """Return what to type after an interruption."""
    # The run's own configuration, not the file it started from: that lacks what --set changed.
    command = f"transformerlm-train --config {shlex.quote(str(folder / CONFIG_FILE))}"
    if config.checkpointing.auto_resume:
        return command
    return f"{command} --set {shlex.quote(f'checkpointing.resume_from={folder}')}"


def make_wandb_settings(config: TrainConfig, folder: Path, world: World) -> WandbSettings:
    """Return where the run appears, with its configuration and the version of the code beside it."""
    return WandbSettings(
        project=config.wandb.project,
        entity=config.wandb.entity or None,
        run_name=folder.name,
        mode=config.wandb.mode,
        config={**config.model_dump(mode="json"), "environment": describe_environment(world)},
        uploads_checkpoints=config.wandb.log_checkpoints,
        finish_timeout_s=config.wandb.finish_timeout_s,
    )


def name_parts(model: TransformerLM) -> dict[str, nn.Module]:
    """Return the parts whose norms are worth a curve each."""
    blocks = {f"block_{index}": block for index, block in enumerate(model.blocks)}
    return {"embedding": model.embedding, **blocks, "head": model.head}


def make_report_facts(config: TrainConfig, folder: Path, model: TransformerLM, world: World) -> ReportFacts:
    """Return what the report says beside the curves."""
    rows = config.training.batch_size * config.training.grad_accum_steps * world.size
    about = (
        f"{config.objective.name.replace('_', ' ')}, {model.parameter_count() / 1e6:.2f} M parameters, "
        f"{rows} x {config.model.context_length} tokens per step"
    )
    return ReportFacts(folder.name, about, UNIT, dump_toml(config), describe_environment(world))


def finish_report(callbacks: list[Callback], table: list[list[str]]) -> None:
    """Write the report once more, with the closing figures and the last samples."""
    report = next((callback for callback in callbacks if isinstance(callback, RunReport)), None)
    if report is None:
        return
    if table:
        heading, *rows = table
        report.table = FiguresTable("Held-out text", ["", *heading[1:]], rows)
    report.write()
