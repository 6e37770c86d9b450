"""A run folder is created once, and refused with a remedy."""

import errno
import os
from pathlib import Path

import pytest

from trainkit.checkpointing.finding import find_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.errors import RunFolderError
from trainkit.run_folder import open_run_folder


def test_latest_moves_to_a_run_with_its_first_checkpoint_and_not_before(tmp_path):
    latest = tmp_path / "runs" / "latest"
    for name, before in (("first", None), ("second", Path("first"))):
        run = open_run_folder(tmp_path / "runs", name)
        manager = CheckpointManager(run / "checkpoints", run=run)
        assert (latest.readlink() if latest.is_symlink() else None) == before
        path = manager.save(1, lambda folder: None)
        assert latest.readlink() == Path(name)
        assert find_checkpoint(latest).resolve() == path.resolve()
    latest.unlink()
    manager.save(2, lambda folder: None)
    assert not latest.exists(), "of two runs side by side, the one that began to save last keeps the name"


def test_a_folder_in_the_way_of_latest_is_reported_before_training(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(RunFolderError, match="latest is no symbolic link to the latest run: rename it"):
        open_run_folder(tmp_path, "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_found_before_training(tmp_path, monkeypatch):
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunFolderError, match=r"run folder .*run cannot be written: No space left on device"):
        open_run_folder(tmp_path, "run")
    assert not any((tmp_path / "run").iterdir())


def test_an_existing_run_is_refused_unless_resumed(tmp_path):
    folder = open_run_folder(tmp_path, "run")
    (folder / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="run exists already: choose another run name, resume the run, or delete"):
        open_run_folder(tmp_path, "run")
    assert open_run_folder(tmp_path, "run", is_resumed=True) == folder
    assert (folder / "metrics.jsonl").exists()


def test_a_runs_path_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match=r"run folder .*file/run cannot be written: Not a directory"):
        open_run_folder(tmp_path / "file", "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_runs_path_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot be written: Permission denied"):
        open_run_folder(tmp_path, "run")


@pytest.mark.parametrize("name", ["", "..", "latest", "a/b"])
def test_names_that_are_no_folder_names_are_refused(tmp_path, name):
    with pytest.raises(RunFolderError, match="cannot name a run"):
        open_run_folder(tmp_path, name)
