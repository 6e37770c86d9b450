"""Make files durable: the few operations whose order decides whether a crash can lose a checkpoint."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors; the caller syncs the file."""
    from safetensors.torch import save_file  # training without checkpoints needs no safetensors

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def write_values(path: Path, values: Any) -> None:
    """Write plain Python values and tensors so that torch reads them back without running code; the caller syncs."""
    torch.save(values, path)


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
