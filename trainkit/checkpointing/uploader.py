"""Bring a run's checkpoints to remote storage in the background; the training loop never waits for it.

One thread makes the remote side hold what the local side holds. It looks for what is missing each time it is woken,
so nothing needs to be remembered over crashes: what an earlier session could not upload is uploaded by the next.
"""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from trainkit.checkpointing.manager import BEST, LATEST, CheckpointManager, checkpoint_step
from trainkit.checkpointing.manifest import MANIFEST_NAME
from trainkit.checkpointing.remote import Attempt, RemoteCheckpoints
from trainkit.checkpointing.retention import rank_by_score

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0


class Uploader:
    """Upload from one thread, and try again until it works; failures become notices, never exceptions."""

    def __init__(self, manager: CheckpointManager, remote: RemoteCheckpoints, first_delay_s: float = FIRST_DELAY_S):
        """Upload what `manager` keeps; after a failure wait `first_delay_s`, then twice that, and so on."""
        self.manager = manager
        self.remote = remote
        self.first_delay_s = first_delay_s
        self._notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._present: dict[str, bytes] | None = None
        """What the remote side is known to hold: name -> content of manifest.json."""
        self._pointed: dict[str, str] = {}
        self._changed = threading.Condition()
        self._wanted = self._done = 0
        """How often the thread was woken, and which of these calls it has served."""
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Say that there may be something to upload; returns at once."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
            self._thread.start()

    def notices(self) -> Iterator[str]:
        """Yield what happened since the last call and is worth telling."""
        while not self._notices.empty():
            yield self._notices.get()

    def is_done(self, timeout_s: float = 0.0) -> bool:
        """Tell whether everything is uploaded, after waiting for it at most `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= self._wanted, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Wait until everything is uploaded, at most `timeout_s`, leave a notice if it is not, and end the thread."""
        if not self.is_done(timeout_s):
            self._notices.put(
                f"not everything could be uploaded to {self.remote.url} within {timeout_s:g} s; the checkpoints are "
                f"in {self.manager.folder}, and resuming the run uploads them"
            )
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._wanted > self._done)
                if self._is_closed:
                    return
                serving = self._wanted
            if self._persist():
                with self._changed:
                    self._done = serving
                    self._changed.notify_all()

    def _persist(self) -> bool:
        """Mirror until it works, and return True; False if the run ended first."""
        delay_s, failures = self.first_delay_s, 0
        while not self._is_closed:
            attempt = Attempt()
            with attempt:
                self.mirror()
            if attempt.error is None:
                if failures:
                    self._notices.put(f"upload to {self.remote.url} works again")
                return True
            self._present, self._pointed = None, {}
            failures += 1
            if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: an outage may last for hours
                self._notices.put(
                    f"upload to {self.remote.url} failed ({type(attempt.error).__name__}: {attempt.error}); "
                    f"failure {failures}, trying again in {delay_s:g} s"
                )
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        return False

    def mirror(self) -> None:
        """Upload the latest, then what else is missing, and delete what is no longer kept."""
        if self._present is None:
            self._present = self.remote.list_complete()
        serving, latest = self._wanted, self.manager.latest()
        if latest is None:
            return
        self._bring(latest)
        if latest.name not in self._present:
            return  # deleted since, so that a newer one is on its way
        self._point(LATEST, latest.name)
        for folder in reversed(self.manager.list_checkpoints()):
            if self._wanted > serving:
                break  # a newer one comes first
            self._bring(folder)
        self._tidy(newest=checkpoint_step(latest))

    def _bring(self, folder: Path) -> None:
        """Upload a checkpoint if the remote side lacks it or holds another one of its step."""
        with self.manager.holding(folder):
            manifest = folder / MANIFEST_NAME
            if manifest.is_file() and self._present.get(folder.name) != manifest.read_bytes():
                self._present[folder.name] = self.remote.upload(folder)

    def _tidy(self, newest: int) -> None:
        """Apply the run's retention to the remote side, which may hold checkpoints that this machine never had."""
        scores = {
            checkpoint_step(Path(name)): self.remote.parse(name, content).score
            for name, content in self._present.items()
        }
        survivors = self.manager.retention.survivors(scores, newest)
        for step in rank_by_score({step: scores[step] for step in survivors})[:1]:
            self._point(BEST, f"step_{step:08d}")
        for name in sorted(self._present):
            if checkpoint_step(Path(name)) not in survivors:
                del self._present[name]
                self.remote.delete(name)

    def _point(self, pointer: str, name: str) -> None:
        if self._pointed.get(pointer) != name:
            self.remote.point(pointer, name)
            self._pointed[pointer] = name
