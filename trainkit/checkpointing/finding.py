"""Find the checkpoint that a user means, and check it before it is trusted."""

from pathlib import Path

from trainkit.checkpointing.manager import BEST, LATEST, CheckpointManager, restore_replaced
from trainkit.checkpointing.manifest import MANIFEST_NAME, verify_manifest
from trainkit.errors import CheckpointError

METRICS_NAME = "metrics.jsonl"


def find_checkpoint(path: Path, prefer: str = LATEST) -> Path:
    """Turn what a user points at into a checkpoint folder: a checkpoint, `latest`, a checkpoints or a run folder.

    prefer: "latest" or "best", where the folder holds several.  Raises CheckpointError if there is none.
    """
    if path.name in (LATEST, BEST) and (path.is_symlink() or not path.exists()) and path.parent.name == "checkpoints":
        path, prefer = path.parent, path.name
    if not path.exists():
        raise CheckpointError(f"checkpoint {path}: there is no such folder")
    checkpoints = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    restore_replaced(checkpoints)
    manager = CheckpointManager(checkpoints)
    newest = manager.latest() or next(reversed(manager.list_checkpoints()), None)
    if newest is None and not (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"checkpoint {path}: {_describe_stranger(path)}")
    if newest is not None and prefer == BEST:
        best = manager.best()
        if best is None:
            raise CheckpointError(
                f"checkpoint {path}: no best checkpoint, because none was saved right after an evaluation; "
                f"the latest is {newest}"
            )
        return best
    return newest or path


def _describe_stranger(path: Path) -> str:
    """Say what something is that exists and is no checkpoint."""
    if not path.is_dir():
        return "this is a file, not the folder of a checkpoint or run"
    if path.name == "checkpoints" or (path / "checkpoints").is_dir() or (path / METRICS_NAME).is_file():
        return "the run holds no checkpoint yet"
    intact = newest_intact(path.parent, other_than=path.name)
    return f"not a checkpoint (no {MANIFEST_NAME})" + (f"; the newest intact checkpoint is {intact}" if intact else "")


def verify_checkpoint(folder: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises CheckpointError naming the file at fault and the newest intact checkpoint beside it.
    """
    try:
        verify_manifest(folder)
    except CheckpointError as error:
        intact = newest_intact(folder.parent, other_than=folder.name)
        remedy = f"the newest intact checkpoint is {intact}" if intact else "no intact checkpoint lies beside it"
        raise CheckpointError(f"{error}; {remedy}") from error


def newest_intact(checkpoints: Path, other_than: str) -> Path | None:
    """Return the newest checkpoint in a folder whose every file holds, or None."""
    for path in reversed(CheckpointManager(checkpoints).list_checkpoints()):
        if path.name == other_than:
            continue
        try:
            verify_manifest(path)
        except CheckpointError:
            continue
        return path
    return None
