"""One training process: build everything from the configuration, train, and report."""

import warnings
from pathlib import Path

from cli.build import build_checkpoints
from cli.callbacks import UNIT, finish_report, make_callbacks
from cli.host_memory import keep_freed_memory
from cli.lending import lend_model
from cli.output import prepare_streams, say
from cli.resuming import CONFIG_FILE, describe_start, open_run
from cli.sources import RowShape, build_val_batches
from cli.summary import print_summary
from cli.task import open_task, row_shape, trainer_settings, training_flops
from cli.tokens import load_tokenizer
from config.roots import TrainConfig
from trainkit.data.documents import Shard
from trainkit.data.packing import Batches
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.evaluation import Validation
from trainkit.settings import Task
from trainkit.trainer import Trainer
from transformerlm.checkpoint_description import TOKENIZER_FOLDER
from transformerlm.tokenizer import Tokenizer


def run_training(world: World, config: TrainConfig) -> int:
    """Train on one rank; returns the exit code."""
    keep_freed_memory()
    prepare_streams()
    # The model's logits are a view of the padded ones, and no objective writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    tokenizer = load_tokenizer(config.data.tokenizer)
    check_prompts(config, tokenizer)
    place = open_run(world, config, tokenizer)
    folder = place.folder
    with open_task(config, tokenizer, world, begins_anew=place.resumed_from is None) as task:
        callbacks = make_callbacks(config, folder, tokenizer, task.model, world, lambda: lend_model(trainer))
        trainer = Trainer(
            task,
            trainer_settings(config, task),
            world,
            callbacks,
            build_checkpoints(config.checkpointing, folder),
            make_validation(config, tokenizer, row_shape(config, task.objective), world),
        )
        if place.resumed_from is not None:
            trainer.resume(place.resumed_from)
        if world.is_first:
            write_run_files(folder, config, tokenizer)
            describe_run(trainer, task, config, folder)
        result = trainer.fit()
    if result.stop_signal is None and (world.is_first or trainer.prepared.is_sharded):
        with lend_model(trainer) as lent:
            if lent is not None:
                finish_report(callbacks, print_summary(config, lent, tokenizer, folder, trainer.state))
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


def describe_run(trainer: Trainer, task: Task, config: TrainConfig, folder: Path) -> None:
    """Say in three lines what is about to be trained, and how its MFU comes about."""
    model, world, steps_done = trainer.model, trainer.world, trainer.state.step
    if steps_done >= config.training.max_steps:
        say(f"already at step {steps_done} of {config.training.max_steps}: raise training.max_steps to train on")
    rows = config.training.batch_size * config.training.grad_accum_steps * world.size
    say(
        f"{config.objective.name} model, {model.parameter_count() / 1e6:.2f} M parameters, "
        f"{training_flops(config, task) / 1e6:.1f} MFLOP per training token; {config.training.max_steps} steps of "
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
