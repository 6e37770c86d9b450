"""A checkpoint is whole or absent, whatever happens while it is written."""

import errno
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from trainkit_workers import save_on_a_small_disk

from trainkit.checkpointing import storage
from trainkit.checkpointing.finding import find_checkpoint, verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.manifest import verify_manifest
from trainkit.checkpointing.retention import Retention
from trainkit.errors import CheckpointError, CheckpointSaveError

STORAGE_OPERATIONS = ("create_folder", "sync_file", "sync_folder", "write_file", "rename", "remove_folder")


def write_step(step: int):
    def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(bytes([step]) * 1000)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.json").write_text(f'{{"step": {step}}}')

    return write


def saved_step(folder: Path) -> int:
    verify_manifest(folder)
    return (folder / "weights.bin").read_bytes()[0]


def test_save_publishes_and_moves_latest(tmp_path):
    manager = CheckpointManager(tmp_path / "checkpoints")
    assert manager.latest() is None
    path = manager.save(500, write_step(5))
    assert path == tmp_path / "checkpoints" / "step_00000500"
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_00000500")
    assert sorted(entry.name for entry in path.iterdir()) == ["manifest.json", "tokenizer", "weights.bin"]
    for pointed_at in (path, path.parent / "latest", path.parent, tmp_path):
        assert saved_step(find_checkpoint(pointed_at)) == 5


def test_keep_last_deletes_the_oldest_but_never_what_latest_names(tmp_path):
    manager = CheckpointManager(tmp_path, Retention(keep_last=2))
    for step in (1, 2, 3):
        manager.save(step, write_step(step))
    assert [path.name for path in manager.list_checkpoints()] == ["step_00000002", "step_00000003"]
    manager.save(1, write_step(1))  # resumed from an early checkpoint: the newest save is not the highest step
    assert manager.latest().name == "step_00000001"
    assert saved_step(manager.latest()) == 1

    keep_all = CheckpointManager(tmp_path / "all", Retention(keep_last=0))
    for step in (1, 2, 3, 4, 5):
        keep_all.save(step, write_step(step))
    assert len(keep_all.list_checkpoints()) == 5


def test_best_names_the_lowest_validation_loss_of_those_kept(tmp_path):
    manager = CheckpointManager(tmp_path, Retention(keep_last=2, keep_best=1))
    named = []
    for step, score in enumerate((3.0, None, 2.0, 2.5, math.nan, 2.0), start=1):
        manager.save(step, write_step(step), score)
        named.append(manager.best().name)
    assert [int(name.removeprefix("step_")) for name in named] == [1, 1, 3, 3, 3, 6], "of equals the later one"
    assert saved_step(find_checkpoint(tmp_path / "best")) == 6


def test_everything_is_durable_before_a_link_names_it_and_nothing_is_deleted_before(tmp_path, monkeypatch):
    """A power cut loses what was not synced, in any order, so the order of these operations is the safety."""
    manager = CheckpointManager(tmp_path, Retention(keep_last=1))
    manager.save(1, write_step(1))
    done: list[tuple[str, str]] = []
    for name in (*STORAGE_OPERATIONS, "point_link"):
        original = getattr(storage, name)
        monkeypatch.setattr(
            storage, name, lambda *args, n=name, f=original: (done.append((n, Path(args[0]).name)), f(*args))
        )
    manager.save(2, write_step(2))
    order = {operation: place for place, operation in enumerate(done)}  # of equal ones the last
    published = order["rename", ".step_00000002.partial"]
    linked = order["point_link", "latest"]
    files = ("weights.bin", "vocab.json", "manifest.json")
    assert all(order["sync_file", name] < published for name in files)
    assert order["sync_folder", ".step_00000002.partial"] < published
    assert ("sync_folder", tmp_path.name) in done[published:linked], "the new name itself"
    deleted = order["rename", "step_00000001"]
    assert ("sync_folder", tmp_path.name) in done[linked:deleted], "and the link, before the old one goes"


def count_write_points(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> int:
    """Count the storage operations of one save over whatever `folder` holds."""
    calls = [0]
    with monkeypatch.context() as patch:
        for name in STORAGE_OPERATIONS:
            original = getattr(storage, name)
            patch.setattr(storage, name, lambda *args, f=original: (calls.__setitem__(0, calls[0] + 1), f(*args)))
        CheckpointManager(folder, Retention(keep_last=2)).save(step, write_step(7))
    return calls[0]


def die_while_saving(folder: Path, at_call: int, step: int) -> None:
    """Save in a forked process that ends, as by kill -9, just before its `at_call`-th storage operation."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        return
    calls = 0

    def deadly(original):
        def operation(*arguments):
            nonlocal calls
            calls += 1
            if calls == at_call:
                os._exit(9)
            return original(*arguments)

        return operation

    try:
        for name in STORAGE_OPERATIONS:
            setattr(storage, name, deadly(getattr(storage, name)))
        CheckpointManager(folder, Retention(keep_last=2)).save(step, write_step(7))
    finally:
        os._exit(0)


@pytest.mark.parametrize("step", [3, 2], ids=["new_step", "same_step_again"])
def test_death_at_any_write_point_leaves_a_loadable_checkpoint(step, tmp_path, monkeypatch):
    template = tmp_path / "template"
    for earlier in (1, 2):
        CheckpointManager(template, Retention(keep_last=2)).save(earlier, write_step(earlier))
    shutil.copytree(template, tmp_path / "count", symlinks=True)
    points = count_write_points(tmp_path / "count", monkeypatch, step)
    assert points > 10
    for at_call in range(1, points + 1):
        folder = tmp_path / f"died_{at_call}"
        shutil.copytree(template, folder, symlinks=True)
        die_while_saving(folder, at_call, step)
        assert saved_step(find_checkpoint(folder)) in (2, 7), f"died at {at_call}"
        assert saved_step(CheckpointManager(folder).save(4, write_step(4))) == 4
        assert not list(folder.glob(".*")), "leftovers are cleaned up by the next save"


@pytest.mark.parametrize("failing", STORAGE_OPERATIONS[:5])
def test_a_failing_disk_is_reported_and_the_previous_checkpoint_stays(failing, tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)
    manager.save(1, write_step(1))

    def fail(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, failing, fail)
    with pytest.raises(
        CheckpointSaveError, match=r"cannot save a checkpoint in .*No space left.*step_00000001 is intact"
    ):
        manager.save(2, write_step(2))
    assert saved_step(manager.latest()) == 1
    assert not list(tmp_path.glob(".*.partial"))


def is_mounted(folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode == 0
    )


def test_a_full_disk_names_the_folder_and_leaves_no_half_checkpoint(tmp_path, spawn):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = is_mounted(disk)
    try:
        process = spawn(save_on_a_small_disk, str(disk), None if mounted else 1000)
        process.join(60)
        assert process.exitcode == 0
        message = (tmp_path / "disk.message").read_text()
        reason = "No space left on device|File too large|os error 28|PytorchStreamWriter"
        assert re.match(rf"cannot save a checkpoint in {disk}: .*({reason}).*step_00000000 is intact", message), message
        verify_checkpoint(find_checkpoint(disk))
        assert sorted(path.name for path in disk.iterdir()) == ["latest", "step_00000000"]
    finally:
        if mounted:
            subprocess.run(["umount", disk], check=True)


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: corrupt(folder / "weights.bin"), "weights.bin is corrupt (its sha256 differs"),
        (
            lambda folder: os.truncate(folder / "weights.bin", 999),
            "weights.bin is truncated (999 bytes instead of 1000)",
        ),
        (lambda folder: (folder / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda folder: (folder / "tokenizer" / "vocab.json").unlink(), "tokenizer/vocab.json is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing, so this is no complete"),
        (lambda folder: os.truncate(folder / "manifest.json", 50), "manifest.json is corrupt"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is corrupt"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format": "other", "version": 1, "files": {}}'),
            "manifest.json is of another format ('other', version 1)",
        ),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_damage_is_named_and_the_newest_intact_checkpoint_offered(damage, message, tmp_path):
    manager = CheckpointManager(tmp_path)
    for step in (1, 2, 3):
        manager.save(step, write_step(step))
    damage(tmp_path / "step_00000003")
    corrupt(tmp_path / "step_00000002" / "weights.bin")
    expected = rf"{re.escape(message)}.*the newest intact checkpoint is .*step_00000001$"
    with pytest.raises(CheckpointError, match=expected):
        verify_checkpoint(tmp_path / "step_00000003")


def test_finding_nothing_says_what_is_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"run_a: there is no such folder"):
        find_checkpoint(tmp_path / "run_a")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="the run holds no checkpoint yet"):
        find_checkpoint(tmp_path / "run")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").touch()
    with pytest.raises(CheckpointError, match="new: the run holds no checkpoint yet"):
        find_checkpoint(tmp_path / "new")
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: this is a file"):
        find_checkpoint(tmp_path / "new" / "metrics.jsonl")
    with pytest.raises(CheckpointError, match=r"not a checkpoint \(no manifest.json\)$"):
        find_checkpoint(tmp_path)


def test_a_checkpoint_that_lost_its_manifest_is_refused_and_the_newest_intact_offered(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, write_step(1))
    (manager.save(2, write_step(2)) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest.json\); the newest intact checkpoint is .*step_00000001$"):
        find_checkpoint(tmp_path / "step_00000002")


def test_negative_retention_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_last must be 0"):
        CheckpointManager(tmp_path, Retention(keep_last=-1))
