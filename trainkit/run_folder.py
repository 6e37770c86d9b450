"""Create the folder of a run, and find out at once whether it can be written."""

from pathlib import Path

from trainkit.checkpointing import storage
from trainkit.checkpointing.manager import LATEST
from trainkit.errors import RunFolderError

_PROBE_BYTES = 16 * 1024


def open_run_folder(runs_path: Path, name: str, is_resumed: bool = False) -> Path:
    """Return runs_path/name, created for a new run. Call this on rank 0 only.

    `runs_path/latest` stays at the last run that has a checkpoint: CheckpointManager(..., run=folder) moves it later.

    Raises RunFolderError if a new run's folder holds files already, nothing can be written there, or `latest` is in
    the way of that link.
    """
    folder = runs_path / name
    if name in ("", ".", "..", LATEST) or Path(name).name != name:
        raise RunFolderError(f"{name!r} cannot name a run: use one folder name other than {LATEST!r}")
    try:
        if not is_resumed and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunFolderError(
                f"the run folder {folder} exists already: choose another run name, resume the run, or delete the folder"
            )
        link = runs_path / LATEST
        if link.exists() and not link.is_symlink():
            raise RunFolderError(f"{link} is no symbolic link to the latest run: rename it")
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder / ".writable")
    except OSError as error:
        raise RunFolderError(f"the run folder {folder} cannot be written: {error.strerror or error}") from error
    return folder


def _try_writing(probe: Path) -> None:
    """Write a little and remove it again; only content that must reach the disk reveals that it is full."""
    try:
        storage.write_file(probe, bytes(_PROBE_BYTES))
        storage.sync_file(probe)
    finally:
        probe.unlink(missing_ok=True)
