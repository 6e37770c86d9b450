"""List a checkpoint's files with their hashes; a folder whose manifest does not hold is not a checkpoint."""

import hashlib
import json
from pathlib import Path

from trainkit.checkpointing import storage
from trainkit.errors import CheckpointError

MANIFEST_NAME = "manifest.json"
FORMAT = "trainkit checkpoint"
VERSION = 1


def write_manifest(folder: Path) -> None:
    """Hash every file below `folder`, make it durable, and write manifest.json last."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            storage.sync_folder(path)
            continue
        storage.sync_file(path)
        files[path.relative_to(folder).as_posix()] = {"size_bytes": path.stat().st_size, "sha256": hash_file(path)}
    manifest = {"format": FORMAT, "version": VERSION, "files": files}
    storage.write_file(folder / MANIFEST_NAME, json.dumps(manifest, indent=2).encode())
    storage.sync_file(folder / MANIFEST_NAME)
    storage.sync_folder(folder)


def verify_manifest(folder: Path) -> None:
    """Check that every file of a checkpoint is there and unchanged.

    Raises CheckpointError naming the first file at fault.
    """
    for name, entry in read_manifest(folder).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing")
        size_bytes = path.stat().st_size
        if size_bytes != entry["size_bytes"]:
            word = "truncated" if size_bytes < entry["size_bytes"] else "too long"
            raise CheckpointError(
                f"checkpoint {folder}: {name} is {word} ({size_bytes} bytes instead of {entry['size_bytes']})"
            )
        if hash_file(path) != entry["sha256"]:
            raise CheckpointError(f"checkpoint {folder}: {name} is corrupt (its sha256 differs from the manifest's)")


def read_manifest(folder: Path) -> dict[str, dict]:
    """Return file name -> {size_bytes, sha256}.

    Raises CheckpointError if the folder is missing or was not written by this code.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: there is no such folder")
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST_NAME} is missing, so this is no complete checkpoint")
    try:
        manifest = json.loads(path.read_bytes())
        is_ours = manifest["format"] == FORMAT and manifest["version"] == VERSION
        entries = {
            name: {"size_bytes": int(e["size_bytes"]), "sha256": e["sha256"]} for name, e in manifest["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST_NAME} is corrupt ({error})") from error
    if not is_ours:
        raise CheckpointError(
            f"checkpoint {folder}: {MANIFEST_NAME} is of another format ({manifest['format']!r}, version "
            f"{manifest['version']!r}); expected {FORMAT!r}, version {VERSION}"
        )
    return entries


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's contents as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
