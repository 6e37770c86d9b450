"""List a checkpoint's files with their hashes; a folder whose manifest does not hold is not a checkpoint.

    {"format": "trainkit checkpoint", "version": 1, "score": 1.25,
     "files": {"rng.pt": {"size_bytes": 5643, "sha256": "9f86d0..."}}}

`score` is the validation loss of these weights, where it was measured right before they were saved.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from trainkit.checkpointing import storage
from trainkit.errors import CheckpointError

MANIFEST_NAME = "manifest.json"
FORMAT = "trainkit checkpoint"
VERSION = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Say what one file of a checkpoint must be."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Hold what manifest.json says."""

    files: dict[str, FileEntry]
    """By path relative to the checkpoint, with forward slashes."""
    score: float | None = None


def write_manifest(folder: Path, score: float | None = None) -> None:
    """Hash every file below `folder`, make it durable, and write manifest.json last."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            storage.sync_folder(path)
            continue
        storage.sync_file(path)
        files[path.relative_to(folder).as_posix()] = {"size_bytes": path.stat().st_size, "sha256": hash_file(path)}
    manifest = {"format": FORMAT, "version": VERSION, "score": score, "files": files}
    storage.write_file(folder / MANIFEST_NAME, json.dumps(manifest, indent=2).encode())
    storage.sync_file(folder / MANIFEST_NAME)
    storage.sync_folder(folder)


def verify_manifest(folder: Path) -> None:
    """Check that every file of a checkpoint is there and unchanged.

    Raises CheckpointError naming the first file at fault.
    """
    for name, entry in read_manifest(folder).files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing")
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            word = "truncated" if size_bytes < entry.size_bytes else "too long"
            raise CheckpointError(
                f"checkpoint {folder}: {name} is {word} ({size_bytes} bytes instead of {entry.size_bytes})"
            )
        if hash_file(path) != entry.sha256:
            raise CheckpointError(f"checkpoint {folder}: {name} is corrupt (its sha256 differs from the manifest's)")


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises CheckpointError if the folder is missing or was not written by this code.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: there is no such folder")
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST_NAME} is missing, so this is no complete checkpoint")
    return parse_manifest(path.read_bytes(), folder)


def parse_manifest(content: bytes, where: Path | str) -> Manifest:
    """Read the bytes of a manifest.json that lies in `where`, which may be a URL.

    Raises CheckpointError if they are corrupt or of another format.
    """
    try:
        values = json.loads(content)
        is_ours = values["format"] == FORMAT and values["version"] == VERSION
        files = {name: FileEntry(int(e["size_bytes"]), str(e["sha256"])) for name, e in values["files"].items()}
        score = values.get("score")
        manifest = Manifest(files, None if score is None else float(score))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {where}: {MANIFEST_NAME} is corrupt ({error})") from error
    if not is_ours:
        raise CheckpointError(
            f"checkpoint {where}: {MANIFEST_NAME} is of another format ({values['format']!r}, version "
            f"{values['version']!r}); expected {FORMAT!r}, version {VERSION}"
        )
    return manifest


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's contents as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
