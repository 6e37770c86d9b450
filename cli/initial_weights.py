"""training.init_from: begin from the weights of another run, whatever it learned."""

from dataclasses import fields
from pathlib import Path

from transformerlm.checkpoint import load_weights
from transformerlm.checkpoint_description import (
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    CheckpointError,
    find_checkpoint,
    read_description,
)
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer

# What may differ: it changes neither the weights nor what they mean.
FREE_FIELDS = {"context_length", "attention_backend", "sdp_backend", "shift_logits", "block_length"}


def load_initial_weights(model: TransformerLM, path: str, tokenizer: Tokenizer) -> str:
    """Fill a model with the weights of a run or checkpoint folder; returns a line that says so.

    Raises ValueError like find_initial_weights.
    """
    folder = find_initial_weights(model.shape, path, tokenizer)
    load_weights(model, folder / WEIGHTS_FILE)
    _, objective = read_description(folder)
    return f"weights of {Path(path)} ({objective}, {folder.name})"


def find_initial_weights(wanted: ModelShape, path: str, tokenizer: Tokenizer) -> Path:
    """Return the checkpoint to begin from.

    Raises ValueError naming every key of [model] that differs, or a tokenizer that does.
    """
    try:
        folder = find_checkpoint(path)
        shape, _ = read_description(folder)
    except CheckpointError as error:
        raise ValueError(f"training.init_from: {error}") from error
    if problems := differences(shape, wanted):
        raise ValueError(
            f"training.init_from: {folder} is a model of another shape: {'; '.join(problems)}; "
            "set [model] to the shape of those weights, or choose others"
        )
    if Tokenizer.load(folder / TOKENIZER_FOLDER) != tokenizer:
        raise ValueError(
            f"training.init_from: {folder} was trained with another tokenizer; point [data.tokenizer] at "
            f"{folder / TOKENIZER_FOLDER}, or choose other weights"
        )
    return folder


def differences(theirs: ModelShape, ours: ModelShape) -> list[str]:
    """Name what makes weights of one shape meaningless in the other."""
    return [
        f"{field.name} is {before} there and {now} here"
        for field in fields(ModelShape)
        if field.name not in FREE_FIELDS
        and (before := theirs.to_dict()[field.name]) != (now := ours.to_dict()[field.name])
    ]
