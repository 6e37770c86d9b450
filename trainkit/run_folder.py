"""Create the folder of a run and keep `runs/latest` pointing at it."""

from pathlib import Path

from trainkit.checkpointing import storage
from trainkit.checkpointing.manager import LATEST
from trainkit.errors import RunFolderError


def open_run_folder(runs_path: Path, name: str, is_resumed: bool = False) -> Path:
    """Return runs_path/name, created for a new run; `runs_path/latest` is moved to it. Call this on rank 0 only.

    Raises RunFolderError if a new run's folder holds files already, or nothing can be written there.
    """
    folder = runs_path / name
    if name in ("", ".", "..", LATEST) or Path(name).name != name:
        raise RunFolderError(f"{name!r} cannot name a run: use one folder name other than {LATEST!r}")
    try:
        if not is_resumed and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunFolderError(
                f"the run folder {folder} exists already: choose another run name, resume the run, or delete the folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
        storage.point_link(runs_path / LATEST, name)
    except OSError as error:
        raise RunFolderError(f"the run folder {folder} cannot be written: {error.strerror or error}") from error
    return folder
