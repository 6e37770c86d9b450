"""What a checkpoint says of itself, read without torch and without its weights.

    <checkpoint>/
      model.safetensors      weights
      model_averaged.safetensors   their moving average, if the run kept one
      model.json             {"format": 1, "shape": {...}, "objective": "autoregressive" | ...}
      tokenizer/             vocab.json  merges.txt  special_tokens.json

Whatever else a training run keeps beside these (optimizer, data position) is not needed to use the model. Its
manifest.json, where there is one, says what the sha256 of each file must be.
"""

import hashlib
import json
from pathlib import Path

from transformerlm.models.shape import ModelShape
from transformerlm.tokenizer import Tokenizer

FORMAT = 1
WEIGHTS_FILE, DESCRIPTION_FILE, TOKENIZER_FOLDER = "model.safetensors", "model.json", "tokenizer"
AVERAGED_FILE = "model_averaged.safetensors"
MANIFEST_FILE = "manifest.json"


class CheckpointError(ValueError):
    """A path does not hold a usable model; the message says why and what to do."""


def write_description(folder: Path, shape: ModelShape, objective: str, tokenizer: Tokenizer) -> None:
    """Write everything but the weights into a checkpoint folder."""
    description = {"format": FORMAT, "shape": shape.to_dict(), "objective": objective}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder / TOKENIZER_FOLDER)


def find_checkpoint(path: Path | str) -> Path:
    """Resolve a checkpoint folder, or a run folder to its latest checkpoint.

    Raises CheckpointError if there is none.
    """
    path = Path(path)
    # Should `latest` point at nothing, the newest step that is there will do.
    steps = sorted((path / "checkpoints").glob("step_*"), reverse=True)
    for candidate in (path, path / "checkpoints" / "latest", *steps):
        if (candidate / DESCRIPTION_FILE).is_file():
            return candidate.resolve()
    if (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file():
        raise CheckpointError(f"{path}: the run holds no checkpoint yet; let it train on, or choose another run")
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such checkpoint or run folder; train a model first "
            "(transformerlm-train --config config/resources/train.toml) or set checkpoint.path"
        )
    raise CheckpointError(f"{path}: neither a checkpoint (no {DESCRIPTION_FILE}) nor a run with checkpoints/latest")


def read_description(folder: Path) -> tuple[ModelShape, str]:
    """Read a checkpoint's shape and objective without loading its weights; raises CheckpointError."""
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {description['format']}, this version reads format {FORMAT}")
        return ModelShape(**description["shape"]), str(description["objective"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model description ({error}); choose another checkpoint") from error


def check_intact(path: Path) -> None:
    """Compare a checkpoint's file with the sha256 in its manifest, if it has one.

    Raises CheckpointError naming the file, and the newest checkpoint beside it in which that file is intact.
    """
    if _is_intact(path):
        return
    siblings = sorted(path.parent.parent.glob("step_*"), reverse=True)
    intact = next((each for each in siblings if (each / path.name).is_file() and _is_intact(each / path.name)), None)
    remedy = f"use {intact}" if intact else "no intact checkpoint lies beside it"
    raise CheckpointError(f"{path}: damaged, its sha256 is not that in {MANIFEST_FILE}; {remedy}")


def _is_intact(path: Path) -> bool:
    manifest = path.parent / MANIFEST_FILE
    if not manifest.is_file():
        return True  # not from a training run
    try:
        expected = json.loads(manifest.read_bytes())["files"][path.name]["sha256"]
    except (ValueError, KeyError, TypeError):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected
