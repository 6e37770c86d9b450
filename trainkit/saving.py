"""Save a run's state while training goes on: the loop copies it, a thread writes it, and the loop hears of it.

    loop      collect from ranks -> copy to host memory ----------------> train on ... poll: on_checkpoint_saved
    thread                                    write, hash, sync, rename, move latest and best, delete old ones

Python's lock is free while tensors are written, hashed and synced, so the loop is hardly slowed by the thread.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from profiling.nvtx import nvtx_range
from trainkit.callbacks import Callback
from trainkit.checkpointing.finding import verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.remote import RemoteCheckpoints
from trainkit.checkpointing.snapshot import HostCopies, Snapshot
from trainkit.checkpointing.uploader import Uploader
from trainkit.distributed.parallel import World
from trainkit.distributed.reduce import gather_objects
from trainkit.errors import CheckpointError, CheckpointSaveError
from trainkit.state import TrainState

_LAST_UPLOAD_S = {False: 600.0, True: 15.0}


class StateSaver:
    """Write one checkpoint at a time; only rank 0 writes, every rank must take part in `begin`."""

    def __init__(
        self, manager: CheckpointManager, state: TrainState, callbacks: Sequence[Callback], in_background: bool
    ):
        """Without `in_background` the loop waits until each checkpoint is durable, and no copy is made."""
        self.manager = manager
        self.state = state
        self.callbacks = callbacks
        self.last_saved: Path | None = None
        """The last durable checkpoint, or the one that was resumed from."""
        self.stall_ms = 0.0
        """How long the last `begin` held up the loop."""
        self._host = HostCopies() if in_background else None
        self._executor: ThreadPoolExecutor | None = None
        has_remote = bool(manager.remote_url) and state.world.is_first
        self._uploader = Uploader(manager, RemoteCheckpoints(manager.remote_url)) if has_remote else None
        self._saving: tuple[int, Future[Path]] | None = None

    def start(self) -> None:
        """Begin to upload what earlier sessions could not."""
        if self._uploader:
            self._uploader.wake()

    def begin(self, score: float | None = None, ranks: list[dict[str, Any]] | None = None) -> None:
        """Copy the state and begin to save it; `score` is its validation loss, if that was just measured.

        ranks: what TrainState.collect_ranks returned earlier, to save without meeting the other ranks now.
        Raises CheckpointSaveError if the save before this one failed.
        """
        began_s = time.perf_counter()
        with nvtx_range("save"):
            ranks = self.state.collect_ranks() if ranks is None else ranks
            tensors = self.state.gather_tensors()
            if self.state.world.is_first:
                self.finish()  # the last save still reads the memory that is about to be written over
                snapshot = self.state.snapshot(ranks, tensors, self._host)
                self._saving = self.state.step, self._start(snapshot, score)
                if self._host is None:
                    self.finish()
        self.stall_ms = (time.perf_counter() - began_s) * 1000.0

    def poll(self) -> None:
        """Tell the callbacks of a save that became durable since; raises CheckpointSaveError if it failed."""
        self._pass_on_notices()
        if self._saving is not None and self._saving[1].done():
            self.finish()

    def finish(self) -> Path | None:
        """Wait until what was begun is durable, tell the callbacks, and return the last checkpoint on rank 0.

        Raises CheckpointSaveError if it failed.
        """
        if self._saving is not None:
            (step, saving), self._saving = self._saving, None
            self.last_saved = saving.result()
            for callback in self.callbacks:
                callback.on_checkpoint_saved(step, self.last_saved)
            if self._uploader:
                self._uploader.wake()
        return self.last_saved

    def close(self, is_stopping: bool) -> None:
        """Wait for what was begun and end the threads; a failure is not raised, since another error is on its way.

        is_stopping: the process was told to leave, or failed, and waits but little for what is being uploaded.
        """
        with suppress(CheckpointSaveError):
            self.finish()
        if self._uploader:
            self._uploader.close(_LAST_UPLOAD_S[is_stopping])
            self._pass_on_notices()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _pass_on_notices(self) -> None:
        for message in self._uploader.notices() if self._uploader else ():
            for callback in self.callbacks:
                callback.on_notice(self.state.step, message)

    def _start(self, snapshot: Snapshot, score: float | None) -> Future[Path]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        return self._executor.submit(
            self.manager.save, self.state.step, lambda folder: self._write(folder, snapshot), score
        )

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        snapshot.write(folder)
        for callback in self.callbacks:
            callback.write_extras(folder)


def verify_on_first_rank(folder: Path, world: World) -> None:
    """Check a checkpoint's hashes once for all ranks, each of which must call this; raises CheckpointError on all."""
    error = None
    if world.is_first:
        try:
            verify_checkpoint(folder)
        except CheckpointError as problem:
            error = problem
    error = gather_objects(error, world)[0]
    if error is not None:
        raise error
