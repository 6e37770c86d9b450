"""Load and save the part of a checkpoint that is a language model: weights, shape, objective, tokenizer.

The layout of the folder is told in checkpoint_description.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformerlm.checkpoint_description import (
    AVERAGED_FILE,
    DESCRIPTION_FILE,
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    CheckpointError,
    check_intact,
    find_checkpoint,
    read_description,
    write_description,
)
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for use, and what is needed to use it."""

    model: TransformerLM
    tokenizer: Tokenizer
    objective: str
    folder: Path | None
    """Where it was loaded from; None for a model still in training."""


WeightsName = Literal["auto", "trained", "averaged"]


def load_model(path: Path | str, device: torch.device | str = "cpu", weights: WeightsName = "auto") -> LoadedModel:
    """Load a model for inference, in float32 on the given device.

    path: a checkpoint or run folder.
    weights: those of the last step, their moving average, or the average where there is one (auto).
    Raises CheckpointError for anything missing, truncated or foreign.
    """
    folder = find_checkpoint(path)
    shape, objective = read_description(folder)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FOLDER)
    model = TransformerLM(shape)
    weights_path = choose_weights(folder, weights)
    if weights_path.is_file():
        check_intact(weights_path)
    load_weights(model, weights_path)
    return LoadedModel(model.to(device).eval(), tokenizer, objective, folder)


def choose_weights(folder: Path, weights: WeightsName) -> Path:
    """Return the file of a checkpoint that holds the weights asked for; raises CheckpointError if there is none."""
    averaged = folder / AVERAGED_FILE
    if weights == "averaged" and not averaged.is_file():
        raise CheckpointError(
            f"{folder}: the run kept no moving average of its weights; train with optimizer.ema_decay, or set "
            'checkpoint.weights = "trained"'
        )
    return averaged if weights != "trained" and averaged.is_file() else folder / WEIGHTS_FILE


def save_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a model so that load_model reads it; the folder must exist. Optimizer and data position are a run's own."""
    weights = {name: weight.contiguous() for name, weight in loaded.model.state_dict().items()}
    if loaded.model.shape.tie_embeddings:
        del weights["head.weight"]  # load_weights finds it in the embedding
    save_file(weights, folder / WEIGHTS_FILE)
    write_description(folder, loaded.model.shape, loaded.objective, loaded.tokenizer)


def load_weights(model: TransformerLM, path: Path) -> None:
    """Fill a model from a safetensors file; raises CheckpointError if they do not fit each other."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable or truncated ({error}); choose another checkpoint") from error
    try:
        fill_weights(model, weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit the model that {DESCRIPTION_FILE} describes: {error}") from error


def fill_weights(model: TransformerLM, weights: dict[str, Tensor]) -> None:
    """Fill a model from tensors by name, of which a tied one needs to be there only once; raises RuntimeError."""
    if model.shape.tie_embeddings:
        weights.setdefault("head.weight", weights.get("embedding.weight"))
        weights.setdefault("embedding.weight", weights.get("head.weight"))
    model.load_state_dict(weights)
