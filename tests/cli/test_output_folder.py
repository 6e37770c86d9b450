"""Files that appear together or not at all."""

import os
from pathlib import Path

import pytest

from cli.output_folder import check_output_folder, write_folder
from trainkit.checkpointing import storage

OLD = {"a.txt": b"old a", "b.txt": b"old b"}
NEW = {"a.txt": b"new a", "b.txt": b"new b"}


@pytest.fixture
def place(tmp_path):
    """Return an empty folder."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_appear_and_nothing_else(place):
    write_folder(place / "made", NEW)
    assert contents(place / "made") == NEW
    assert os.listdir(place) == ["made"]


def test_older_files_are_replaced_as_a_whole(place):
    write_folder(place / "made", {**OLD, "c.txt": b"old c"})
    write_folder(place / "made", NEW)
    assert contents(place / "made") == NEW
    assert os.listdir(place) == ["made"]


@pytest.mark.parametrize("step", ["create_folder", "write_file", "sync_file", "sync_folder", "rename"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("older", [None, OLD])
def test_an_interruption_at_any_step_leaves_all_old_or_all_new_files(place, monkeypatch, step, count, older):
    if older:
        write_folder(place / "made", older)
    original, calls = vars(storage)[step], []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(storage, step, interrupted)
    try:
        write_folder(place / "made", NEW)
        was_interrupted = False
    except KeyboardInterrupt:
        was_interrupted = True
    left = contents(place / "made") if (place / "made").exists() else None
    assert left in (older, NEW)
    assert was_interrupted or left == NEW
    assert set(os.listdir(place)) <= {"made"}


def test_a_link_to_a_folder_stays_a_link(place):
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    write_folder(place / "link", NEW)
    assert (place / "link").is_symlink()
    assert contents(place / "real") == NEW


def test_a_folder_with_other_files_is_refused_beforehand(place):
    (place / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds other files, such as thesis\.tex.*choose a new folder"):
        check_output_folder(place, frozenset(NEW))


def test_the_check_leaves_nothing_behind(place):
    check_output_folder(place / "new" / "made", frozenset(NEW))
    assert os.listdir(place / "new") == []


def test_a_place_that_cannot_be_written_is_found_out_beforehand(place):
    Path(place / "file").touch()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        check_output_folder(place / "file" / "made", frozenset(NEW))
