"""One training process: build everything from the configuration, train, and report."""

from pathlib import Path

import torch

from cli.build import build_checkpoints, build_objective, build_shape, build_trainer_settings
from cli.callbacks import UNIT, finish_report, make_callbacks
from cli.initial_weights import load_initial_weights
from cli.output import prepare_streams, say
from cli.resuming import CONFIG_FILE, describe_start, open_run
from cli.sources import RowShape, build_train_batches, build_val_batches, prefetched
from cli.summary import print_summary
from cli.tokens import load_tokenizer
from config.roots import TrainConfig
from profiling.layers import name_layers
from trainkit.data.documents import Shard
from trainkit.data.packing import Batches
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.evaluation import Validation
from trainkit.settings import Task
from trainkit.trainer import Trainer
from transformerlm.checkpoint_description import TOKENIZER_FOLDER
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.base import LanguageObjective
from transformerlm.tokenizer import Tokenizer


def run_training(world: World, config: TrainConfig) -> int:
    """Train on one rank; returns the exit code."""
    prepare_streams()
    tokenizer = load_tokenizer(config.data.tokenizer)
    check_prompts(config, tokenizer)
    place = open_run(world, config, tokenizer)
    folder = place.folder
    shape = build_shape(config.model, config.objective)
    torch.manual_seed(config.training.seed)
    model = TransformerLM(shape)
    if config.training.init_from and place.resumed_from is None:
        begun_from = load_initial_weights(model, config.training.init_from, tokenizer)
        if world.is_first:
            say(begun_from)
    name_layers(model.blocks)  # for Nsight Systems, if the environment asks for it
    objective = build_objective(config.objective, tokenizer)
    rows = RowShape(shape.context_length, objective.lookahead, config.training.batch_size)
    batches = build_train_batches(config.data, tokenizer, rows, Shard(world.rank, world.size))
    callbacks = make_callbacks(config, folder, tokenizer, model, world)
    with prefetched(batches, config.data, pin_memory=world.device.type == "cuda") as source:
        trainer = Trainer(
            Task(model, objective, source),
            build_trainer_settings(
                config.training,
                config.optimizer,
                config.logging.log_every,
                config.checkpointing,
                objective.training_flops(model, shape.context_length),
            ),
            world,
            callbacks,
            build_checkpoints(config.checkpointing, folder),
            make_validation(config, tokenizer, rows, world),
        )
        if place.resumed_from is not None:
            trainer.resume(place.resumed_from)
        if world.is_first:
            write_run_files(folder, config, tokenizer)
            describe_run(trainer, objective, config, folder)
        result = trainer.fit()
    if world.is_first and result.stop_signal is None:
        summary = print_summary(config, trainer.model, tokenizer, folder, trainer.state)
        finish_report(callbacks, summary)
    return result.exit_code


def check_prompts(config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Refuse prompts that leave no room for a sample now, not after the last step."""
    total_length = config.sampling.total_length or config.model.context_length
    for prompt in config.sampling.prompts:
        length = 1 + len(tokenizer.encode(prompt, allowed_special="none"))
        if length >= total_length:
            raise ValueError(
                f"sampling.prompts: {prompt!r} takes {length} of {total_length} tokens, its start token included, and "
                "leaves no room; shorten it, raise sampling.total_length, or set sampling.prompts = []"
            )


def write_run_files(folder: Path, config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Keep the resolved configuration and the tokenizer beside the metrics; a full disk leaves the former ones.

    The configuration is written as that of a new run: training it again repeats the run, however often it was resumed.
    """
    temporary = folder / f".{CONFIG_FILE}.partial"
    temporary.write_text(describe_start(config), encoding="utf-8")
    temporary.replace(folder / CONFIG_FILE)
    if not (folder / TOKENIZER_FOLDER).exists():
        tokenizer.save(folder / TOKENIZER_FOLDER)


def describe_run(trainer: Trainer, objective: LanguageObjective, config: TrainConfig, folder: Path) -> None:
    """Say in three lines what is about to be trained, and how its MFU comes about."""
    model, world, steps_done = trainer.model, trainer.world, trainer.state.step
    if steps_done >= config.training.max_steps:
        say(f"already at step {steps_done} of {config.training.max_steps}: raise training.max_steps to train on")
    flops = objective.training_flops(model, config.model.context_length)
    rows = config.training.batch_size * config.training.grad_accum_steps * world.size
    say(
        f"{config.objective.name} model, {model.parameter_count() / 1e6:.2f} M parameters, "
        f"{flops / 1e6:.1f} MFLOP per training token; {config.training.max_steps} steps of "
        f"{rows} x {config.model.context_length} tokens on {world.size} x {world.device.type}\n"
        f"{trainer.utilisation.describe(UNIT)}\nrun folder: {folder}"
    )


def make_validation(config: TrainConfig, tokenizer: Tokenizer, rows: RowShape, world: World) -> Validation | None:
    """Return how to validate, or None if that is switched off; every rank must call this.

    Raises ValueError, saying how many tokens there are, if no rank has a row to validate on.
    """
    if config.training.skip_validation:
        return None

    def make_batches() -> Batches:
        return build_val_batches(config.data, tokenizer, rows, Shard(world.rank, world.size))

    batches = make_batches()
    found = gather_objects((next(batches, None) is not None, batches.rows.values_read), world)
    if not any(has_batch for has_batch, _ in found):
        raise ValueError(
            f"the validation split holds {max(tokens for _, tokens in found)} tokens"
            f"{' in the largest share of a process' if world.size > 1 else ''}, fewer than one row of "
            f"{rows.row_length}: give it more text, lower model.context_length, or set training.skip_validation = true"
        )
    return Validation(make_batches, config.training.eval_every, config.training.eval_batches)
