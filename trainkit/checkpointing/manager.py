"""Keep a run's checkpoints: write them atomically, name the latest and the best, and delete old ones.

checkpoints/.step_00000500.partial/    being written; a crash leaves it behind and the next save removes it
checkpoints/step_00000500/             complete: renamed only after every file and the manifest were durable
checkpoints/latest -> step_00000500    moved only after the rename was durable
checkpoints/best -> step_00000400      of those kept, the one of lowest validation loss; moved with latest
checkpoints/.step_00000100.deleted/    no longer kept; a crash leaves it behind and the next save removes it
checkpoints/.step_00000500.replaced/   an older checkpoint of the same step, put back if a crash stops its successor
../latest -> <name>                    beside the run folder: the last run that began to save checkpoints
"""

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainkit.checkpointing import storage
from trainkit.checkpointing.manifest import read_manifest, write_manifest
from trainkit.checkpointing.retention import Retention, rank_by_score
from trainkit.errors import CheckpointError, CheckpointSaveError

LATEST, BEST = "latest", "best"
_STEP_NAME = re.compile(r"step_(\d{8,})")


class CheckpointManager:
    """Own the checkpoints folder of one run. Only rank 0 saves; every rank may read."""

    def __init__(self, folder: Path, retention: Retention | None = None, run: Path | None = None, remote_url: str = ""):
        """Keep what `retention` says; the folder need not exist yet.

        With `run`, the run's folder, `latest` beside it is pointed at the run when its first checkpoint is published.
        With `remote_url`, the trainer uploads to it what is saved here.
        """
        self.folder = folder
        self.retention = retention or Retention()
        self.run = run
        self.remote_url = remote_url
        self._is_run_latest = False
        self._scores: dict[int, float | None] = {}
        self._held: set[str] = set()
        self._deleting = threading.Lock()

    def save(self, step: int, write: Callable[[Path], None], score: float | None = None) -> Path:
        """Write one checkpoint by calling `write(temporary_folder)`, then publish it; return its folder.

        score: the validation loss of what is saved, by which the best is chosen.
        Raises CheckpointSaveError if the disk is full or refuses; earlier checkpoints stay intact.
        """
        from safetensors import SafetensorError  # training without checkpoints needs no safetensors

        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".{final.name}.partial"
        score = score if score is not None and math.isfinite(score) else None
        try:
            restore_replaced(self.folder)
            self._remove_leftovers()
            storage.create_folder(temporary)
            write(temporary)
            write_manifest(temporary, score)
            self._publish(temporary, final, score)
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch and safetensors report a full disk as their own kinds of error.
            self._remove_leftovers(ignore_errors=True)
            newest = self.latest()
            kept = f"the checkpoint {newest} is intact" if newest else "there is no earlier checkpoint"
            raise CheckpointSaveError(f"cannot save a checkpoint in {self.folder}: {error}; {kept}") from error
        return final

    def _publish(self, temporary: Path, final: Path, score: float | None) -> None:
        """Give a complete checkpoint its name, move the links to it, and only then delete what it replaces."""
        replaced = self.folder / f".{final.name}.replaced"
        if final.exists():  # saved before the run was resumed from an earlier step
            storage.rename(final, replaced)
        storage.rename(temporary, final)
        storage.sync_folder(self.folder)
        scores = self.scores() | {checkpoint_step(final): score}
        self._scores = scores
        survivors = self.retention.survivors(scores, newest=checkpoint_step(final))
        storage.point_link(self.folder / LATEST, final.name)
        self._point_best(survivors)
        storage.sync_folder(self.folder)
        if self.run is not None and not self._is_run_latest:
            storage.sync_folder(self.run)
            storage.point_link(self.run.with_name(LATEST), self.run.name)
            storage.sync_folder(self.run.parent)
            self._is_run_latest = True
        if replaced.exists():
            storage.remove_folder(replaced)
        for path in self.list_checkpoints():
            if checkpoint_step(path) not in survivors:
                self._delete(path)

    def _point_best(self, survivors: set[int]) -> None:
        ranking = rank_by_score({step: self._scores[step] for step in survivors})
        if ranking and (self.best() is None or checkpoint_step(self.best()) != ranking[0]):
            storage.point_link(self.folder / BEST, f"step_{ranking[0]:08d}")

    def latest(self) -> Path | None:
        """Return the checkpoint that `latest` names, or None if there is none."""
        return self._follow(LATEST)

    def best(self) -> Path | None:
        """Return the checkpoint that `best` names, or None if none was saved right after an evaluation."""
        return self._follow(BEST)

    def _follow(self, name: str) -> Path | None:
        link = self.folder / name
        return self.folder / link.readlink().name if link.is_symlink() and link.exists() else None

    def list_checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest step first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _STEP_NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=checkpoint_step)

    def scores(self) -> dict[int, float | None]:
        """Return the validation loss of every checkpoint by its step; None where it is not known."""
        return {checkpoint_step(path): self._score(path) for path in self.list_checkpoints()}

    def _score(self, path: Path) -> float | None:
        step = checkpoint_step(path)
        if step not in self._scores:
            try:
                self._scores[step] = read_manifest(path).score
            except CheckpointError:
                self._scores[step] = None
        return self._scores[step]

    @contextmanager
    def holding(self, path: Path) -> Iterator[None]:
        """Keep a checkpoint from being deleted inside the block, because it is being read by another thread."""
        with self._deleting:
            self._held.add(path.name)
        try:
            yield
        finally:
            with self._deleting:
                self._held.discard(path.name)

    def _delete(self, path: Path) -> None:
        with self._deleting:
            if path.name in self._held:
                return  # a later save will delete it
            leftover = path.with_name(f".{path.name}.deleted")
            storage.rename(path, leftover)
            storage.remove_folder(leftover)
            self._scores.pop(checkpoint_step(path), None)

    def _remove_leftovers(self, ignore_errors: bool = False) -> None:
        for path in [*self.folder.glob(".step_*.partial"), *self.folder.glob(".step_*.deleted")]:
            try:
                storage.remove_folder(path)
            except OSError:
                if not ignore_errors:
                    raise


def is_checkpoint_name(name: str) -> bool:
    """Tell whether a folder is named like a checkpoint."""
    return _STEP_NAME.fullmatch(name) is not None


def checkpoint_step(path: Path) -> int:
    """Read the step from a checkpoint folder's name."""
    match = _STEP_NAME.fullmatch(path.name)
    assert match, f"{path} is not named like a checkpoint"
    return int(match[1])


def restore_replaced(folder: Path) -> None:
    """Put back a checkpoint whose successor of the same step was never published, because the process died."""
    for replaced in folder.glob(".step_*.replaced"):
        final = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if final.exists():
            storage.remove_folder(replaced)
        else:
            storage.rename(replaced, final)
