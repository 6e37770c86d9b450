"""Lend out a model in training as inference would see it: whole, and averaged if the run averages its weights."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from trainkit.distributed.gathering import gather_model
from trainkit.trainer import Trainer
from transformerlm.checkpoint import fill_weights
from transformerlm.models.transformer import TransformerLM


@contextmanager
def lend_model(trainer: Trainer) -> Iterator[TransformerLM | None]:
    """Yield the model on rank 0 and None on others, and leave it as it was: training, with the weights of its step.

    Of a sharded model every rank must call this, and rank 0 needs room for all of it on its device; of any other,
    only rank 0 needs to.
    """
    was_training = trainer.model.training
    with trainer.averages.in_place_of_weights() if trainer.averages else nullcontext():
        if trainer.prepared.is_sharded:
            weights = gather_model(trainer.model, trainer.world)
            yield _rebuild(trainer, weights) if trainer.world.is_first else None
        else:
            yield trainer.model.eval() if trainer.world.is_first else None
    trainer.model.train(was_training)


def _rebuild(trainer: Trainer, weights: dict) -> TransformerLM:
    model = TransformerLM(trainer.model.shape)
    fill_weights(model, weights)
    return model.to(trainer.world.device).eval()
