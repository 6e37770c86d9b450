"""A run folder is created once, and refused with a remedy."""

import os

import pytest

from trainkit.errors import RunFolderError
from trainkit.run_folder import open_run_folder


def test_a_new_run_is_latest(tmp_path):
    open_run_folder(tmp_path / "runs", "first")
    folder = open_run_folder(tmp_path / "runs", "second")
    assert folder.is_dir()
    assert (tmp_path / "runs" / "latest").resolve() == folder.resolve()


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
