"""Write several files into a folder so that all appear together or none does."""

import os
from collections.abc import Mapping
from pathlib import Path

from trainkit.checkpointing import storage


def check_output_folder(folder: Path, names: frozenset[str]) -> None:
    """Find out before a long run whether `write_folder` will be able to write; leaves nothing behind but parents.

    Raises ValueError if the folder holds files other than `names`, OSError if nothing can be written there.
    """
    target = folder.resolve()
    others = sorted(path.name for path in target.iterdir() if path.name not in names) if target.exists() else []
    if others:
        raise ValueError(
            f"{folder} holds other files, such as {others[0]}, and is replaced as a whole: choose a new folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    probe = _beside(target, "writable")
    storage.create_folder(probe)
    storage.remove_folder(probe)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, replacing what it held: a reader finds all old files or all new ones."""
    target = folder.resolve()
    unfinished, previous = _beside(target, "unfinished"), _beside(target, "previous")
    storage.create_folder(unfinished)
    try:
        for name, content in contents.items():
            storage.write_file(unfinished / name, content)
            storage.sync_file(unfinished / name)
        storage.sync_folder(unfinished)
        if target.exists():
            storage.rename(target, previous)
        storage.rename(unfinished, target)
    finally:
        if previous.exists() and not target.exists():  # interrupted between the two steps
            storage.rename(previous, target)
        for leftover in (unfinished, previous):
            if leftover.exists():
                storage.remove_folder(leftover)
    storage.sync_folder(target.parent)


def _beside(target: Path, purpose: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{purpose}")
