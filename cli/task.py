"""What is trained, and how: model, objective, data and settings, built from the configuration."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cli.build import build_objective, build_shape, build_trainer_settings, share_model
from cli.initial_weights import load_initial_weights
from cli.output import say
from cli.sources import RowShape, build_train_batches, prefetched
from config.roots import TrainConfig
from profiling.layers import name_layers
from trainkit.data.documents import Shard
from trainkit.distributed.parallel import World
from trainkit.settings import Task, TrainerSettings
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.base import LanguageObjective
from transformerlm.tokenizer import Tokenizer


@contextmanager
def open_task(config: TrainConfig, tokenizer: Tokenizer, world: World, begins_anew: bool = True) -> Iterator[Task]:
    """Yield a new model, its objective and this rank's training data, whose threads end with the block.

    begins_anew: the weights are to be those of training.init_from, if it is set; else a checkpoint will bring them.
    """
    torch.manual_seed(config.training.seed)
    model = TransformerLM(build_shape(config.model, config.objective))
    if config.training.init_from and begins_anew:
        begun_from = load_initial_weights(model, config.training.init_from, tokenizer)
        if world.is_first:
            say(begun_from)
    name_layers(model.blocks)  # for Nsight Systems, if the environment asks for it
    objective = build_objective(config.objective, tokenizer)
    batches = build_train_batches(config.data, tokenizer, row_shape(config, objective), Shard(world.rank, world.size))
    with prefetched(batches, config.data, pin_memory=world.device.type == "cuda") as source:
        yield Task(model, objective, source, blocks=tuple(model.blocks), role_of=model.role_of)


def row_shape(config: TrainConfig, objective: LanguageObjective) -> RowShape:
    """Return the rows that the objective wants of a micro-batch."""
    return RowShape(config.model.context_length, objective.lookahead, config.training.batch_size)


def trainer_settings(config: TrainConfig, task: Task) -> TrainerSettings:
    """Return what the training loop needs to know."""
    flops = training_flops(config, task)
    settings = build_trainer_settings(
        config.training, config.optimizer, config.logging.log_every, config.checkpointing, flops
    )
    return share_model(settings, config.ddp)


def training_flops(config: TrainConfig, task: Task) -> int:
    """Count the operations of forward and backward for one token of a full row."""
    return task.objective.training_flops(task.model, config.model.context_length)
