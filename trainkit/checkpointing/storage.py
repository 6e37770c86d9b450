"""Make files durable: the few operations whose order decides whether a crash can lose a checkpoint."""

import os
import shutil
from pathlib import Path


def create_folder(folder: Path) -> None:
    """Create a folder that must not exist yet."""
    folder.mkdir(parents=True)


def sync_file(path: Path) -> None:
    """Wait until the contents of a file are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; without this a renamed file may vanish in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one go; the caller syncs it."""
    path.write_bytes(content)


def rename(source: Path, target: Path) -> None:
    """Give a finished folder or file its name, in one atomic step."""
    source.rename(target)


def point_link(link: Path, target_name: str) -> None:
    """Make `link` a symbolic link to its sibling `target_name`, replacing an older one without a gap."""
    temporary = link.with_name(f".{link.name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target_name)
    rename(temporary, link)


def remove_folder(folder: Path) -> None:
    """Delete a folder and all that is in it."""
    shutil.rmtree(folder)
