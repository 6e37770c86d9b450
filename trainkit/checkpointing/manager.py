"""Keep a run's checkpoints: write them atomically, find them, verify them, and delete old ones.

checkpoints/.step_00000500.partial/    being written; a crash leaves it behind and the next save removes it
checkpoints/step_00000500/             complete: renamed only after every file and the manifest were durable
checkpoints/latest -> step_00000500    moved only after the rename was durable
checkpoints/.step_00000500.replaced/   an older checkpoint of the same step, put back if a crash stops its successor
../latest -> <name>                    beside the run folder: the last run that began to save checkpoints
"""

import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from trainkit.checkpointing import storage
from trainkit.checkpointing.manifest import MANIFEST_NAME, verify_manifest, write_manifest
from trainkit.errors import CheckpointError, CheckpointSaveError

LATEST = "latest"
METRICS_NAME = "metrics.jsonl"
_STEP_NAME = re.compile(r"step_(\d{8,})")


class CheckpointManager:
    """Own the checkpoints folder of one run. Only rank 0 saves; every rank may read."""

    def __init__(self, folder: Path, keep_last: int = 3, run: Path | None = None):
        """Keep the newest `keep_last` checkpoints (0 keeps all); the folder need not exist yet.

        With `run`, the run's folder, `latest` beside it is pointed at the run when its first checkpoint is published.
        """
        if keep_last < 0:
            raise ValueError(f"keep_last must be 0 (keep all) or more, got {keep_last}")
        self.folder = folder
        self.keep_last = keep_last
        self.run = run
        self._is_run_latest = False

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Write one checkpoint by calling `write(temporary_folder)`, then publish it; return its folder.

        Raises CheckpointSaveError if the disk is full or refuses; earlier checkpoints stay intact.
        """
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".{final.name}.partial"
        try:
            restore_replaced(self.folder)
            self._remove_leftovers()
            storage.create_folder(temporary)
            write(temporary)
            write_manifest(temporary)
            self._publish(temporary, final)
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch and safetensors report a full disk as their own kinds of error.
            self._remove_leftovers(ignore_errors=True)
            newest = self.latest()
            kept = f"the checkpoint {newest} is intact" if newest else "there is no earlier checkpoint"
            raise CheckpointSaveError(f"cannot save a checkpoint in {self.folder}: {error}; {kept}") from error
        self._delete_old()
        return final

    def _publish(self, temporary: Path, final: Path) -> None:
        replaced = self.folder / f".{final.name}.replaced"
        if final.exists():  # saved before the run was resumed from an earlier step
            storage.rename(final, replaced)
        storage.rename(temporary, final)
        storage.sync_folder(self.folder)
        storage.point_link(self.folder / LATEST, final.name)
        storage.sync_folder(self.folder)
        if replaced.exists():
            storage.remove_folder(replaced)
        if self.run is not None and not self._is_run_latest:
            storage.point_link(self.run.with_name(LATEST), self.run.name)
            self._is_run_latest = True

    def latest(self) -> Path | None:
        """Return the checkpoint that `latest` names, or None if there is none."""
        link = self.folder / LATEST
        return self.folder / link.readlink().name if link.is_symlink() and link.exists() else None

    def list_checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest step first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _STEP_NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=checkpoint_step)

    def _delete_old(self) -> None:
        if self.keep_last == 0:
            return
        latest = self.latest()
        for path in self.list_checkpoints()[: -self.keep_last]:
            if path != latest:
                storage.remove_folder(path)

    def _remove_leftovers(self, ignore_errors: bool = False) -> None:
        for path in self.folder.glob(".step_*.partial"):
            try:
                storage.remove_folder(path)
            except OSError:
                if not ignore_errors:
                    raise


def checkpoint_step(path: Path) -> int:
    """Read the step from a checkpoint folder's name."""
    match = _STEP_NAME.fullmatch(path.name)
    assert match, f"{path} is not named like a checkpoint"
    return int(match[1])


def find_checkpoint(path: Path) -> Path:
    """Turn what a user points at into a checkpoint folder: a checkpoint, `latest`, a checkpoints or a run folder.

    Raises CheckpointError if there is none.
    """
    if path.name == LATEST and (path.is_symlink() or not path.exists()) and path.parent.name == "checkpoints":
        path = path.parent
    if not path.exists():
        raise CheckpointError(f"checkpoint {path}: there is no such folder")
    checkpoints = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    restore_replaced(checkpoints)
    manager = CheckpointManager(checkpoints)
    newest = manager.latest() or next(reversed(manager.list_checkpoints()), None)
    if newest is None and not (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"checkpoint {path}: {_describe_stranger(path)}")
    return newest or path


def _describe_stranger(path: Path) -> str:
    """Say what something is that exists and is no checkpoint."""
    if not path.is_dir():
        return "this is a file, not the folder of a checkpoint or run"
    if path.name == "checkpoints" or (path / "checkpoints").is_dir() or (path / METRICS_NAME).is_file():
        return "the run holds no checkpoint yet"
    intact = _newest_intact(path.parent, other_than=path.name)
    return f"not a checkpoint (no {MANIFEST_NAME})" + (f"; the newest intact checkpoint is {intact}" if intact else "")


def restore_replaced(folder: Path) -> None:
    """Put back a checkpoint whose successor of the same step was never published, because the process died."""
    for replaced in folder.glob(".step_*.replaced"):
        final = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if final.exists():
            storage.remove_folder(replaced)
        else:
            storage.rename(replaced, final)


def verify_checkpoint(folder: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises CheckpointError naming the file at fault and the newest intact checkpoint beside it.
    """
    try:
        verify_manifest(folder)
    except CheckpointError as error:
        intact = _newest_intact(folder.parent, other_than=folder.name)
        remedy = f"the newest intact checkpoint is {intact}" if intact else "no intact checkpoint lies beside it"
        raise CheckpointError(f"{error}; {remedy}") from error


def _newest_intact(folder: Path, other_than: str) -> Path | None:
    for path in reversed(CheckpointManager(folder).list_checkpoints()):
        if path.name == other_than:
            continue
        try:
            verify_manifest(path)
        except CheckpointError:
            continue
        return path
    return None
