"""What is uploaded can be trained on elsewhere; whatever the network does, nothing half is loaded and no step waits."""

import json
import shutil
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from trainkit_workers import make_settings, make_trainer, weights_of

from trainkit.callbacks import Callback
from trainkit.checkpointing.finding import verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.remote import RemoteCheckpoints, fetch_checkpoint, open_file_system
from trainkit.checkpointing.retention import Retention
from trainkit.checkpointing.uploader import Uploader
from trainkit.distributed.parallel import World
from trainkit.errors import CheckpointError

URL = "memory://bucket/run"


class UnreliableFileSystem(MemoryFileSystem):
    """A file system in memory whose operations fail on request: fails[i] tells whether the i-th one does."""

    protocol = "unreliable"
    store: dict = {}  # noqa: RUF012 - fsspec's way
    pseudo_dirs = [""]  # noqa: RUF012
    fails: list = []  # noqa: RUF012
    calls = 0

    @classmethod
    def count(cls) -> None:
        cls.calls += 1
        if cls.calls <= len(cls.fails) and cls.fails[cls.calls - 1]:
            raise ConnectionError("the line is dead")

    def put_file(self, *arguments, **options):
        self.count()
        return super().put_file(*arguments, **options)

    def pipe_file(self, *arguments, **options):
        self.count()
        return super().pipe_file(*arguments, **options)

    def rm_file(self, path):
        self.count()
        return super().rm_file(path)


fsspec.register_implementation("unreliable", UnreliableFileSystem, clobber=True)


@pytest.fixture(autouse=True)
def empty_stores():
    for kind in (MemoryFileSystem, UnreliableFileSystem):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    UnreliableFileSystem.fails, UnreliableFileSystem.calls = [], 0


def write_step(step: int):
    def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(bytes([step]) * 1000)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.json").write_text("{}")

    return write


def save_steps(manager: CheckpointManager, *steps: int, score: float | None = None) -> None:
    for step in steps:
        manager.save(step, write_step(step), score)


def upload(manager: CheckpointManager, url: str = URL) -> list[str]:
    """Upload all and return the notices."""
    uploader = Uploader(manager, RemoteCheckpoints(url), first_delay_s=0.001)
    uploader.wake()
    uploader.close(timeout_s=20)
    return list(uploader.notices())


def test_a_checkpoint_comes_back_as_it_was_and_the_pointers_follow(tmp_path):
    manager = CheckpointManager(tmp_path / "here", Retention(keep_best=1))
    save_steps(manager, 1, score=1.0)
    save_steps(manager, 2, score=2.0)
    assert upload(manager) == []
    for asked, name in [("", 2), ("/latest", 2), ("/best", 1), ("/step_00000001", 1)]:
        fetched = fetch_checkpoint(URL + asked, tmp_path / "there")
        assert fetched.name == f"step_{name:08d}"
        verify_checkpoint(fetched)
        assert (fetched / "weights.bin").read_bytes() == bytes([name]) * 1000
        assert (fetched / "tokenizer" / "vocab.json").is_file()
    assert fetch_checkpoint(URL, tmp_path / "there", prefer="best").name == "step_00000001"


def test_retention_reaches_the_remote_side_but_spares_what_this_machine_never_had(tmp_path):
    first = CheckpointManager(tmp_path / "first", Retention(keep_last=2, keep_best=1))
    save_steps(first, 1, score=0.5)
    save_steps(first, 2, 3, score=1.0)
    upload(first)
    second = CheckpointManager(tmp_path / "second", Retention(keep_last=2, keep_best=1))
    assert fetch_checkpoint(URL, second.folder).name == "step_00000003"
    save_steps(second, 4, 5, score=2.0)
    upload(second)
    remote = RemoteCheckpoints(URL)
    assert list(remote.list_complete()) == ["step_00000001", "step_00000004", "step_00000005"]
    assert (remote.follow("latest"), remote.follow("best")) == ("step_00000005", "step_00000001")


def test_a_step_that_was_saved_again_replaces_the_one_uploaded_before(tmp_path):
    manager = CheckpointManager(tmp_path / "here")
    save_steps(manager, 1)
    upload(manager)
    manager.save(1, write_step(9))
    upload(manager)
    assert (fetch_checkpoint(URL, tmp_path / "there") / "weights.bin").read_bytes() == bytes([9]) * 1000


def test_death_of_the_line_at_any_operation_never_leaves_half_a_checkpoint_in_sight(tmp_path):
    manager = CheckpointManager(tmp_path / "here", Retention(keep_last=1))
    save_steps(manager, 1)
    upload(manager, "unreliable://bucket/run")
    save_steps(manager, 2)
    before = {path: file.getvalue() for path, file in UnreliableFileSystem.store.items()}
    UnreliableFileSystem.calls = 0
    upload(manager, "unreliable://bucket/run")
    operations = UnreliableFileSystem.calls
    assert operations >= 5, "three files, the pointer, the old manifest"
    for index in range(operations):
        empty_and_fill(before)
        UnreliableFileSystem.fails = [False] * index + [True] * 1000
        uploader = Uploader(manager, RemoteCheckpoints("unreliable://bucket/run"))
        with pytest.raises(ConnectionError):
            uploader.mirror()
        fetched = fetch_checkpoint("unreliable://bucket/run", tmp_path / f"there_{index}")
        verify_checkpoint(fetched)
        assert fetched.name in ("step_00000001", "step_00000002"), index
        for name in RemoteCheckpoints("unreliable://bucket/run").list_complete():
            fetch_checkpoint(f"unreliable://bucket/run/{name}", tmp_path / f"listed_{index}")
        UnreliableFileSystem.fails = []
        assert upload(manager, "unreliable://bucket/run") == []
        assert list(RemoteCheckpoints("unreliable://bucket/run").list_complete()) == ["step_00000002"]


def empty_and_fill(content: dict[str, bytes]) -> None:
    UnreliableFileSystem.store.clear()
    UnreliableFileSystem.fails, UnreliableFileSystem.calls = [], 0
    for path, data in content.items():
        UnreliableFileSystem().pipe_file(path, data)
    UnreliableFileSystem.calls = 0


def test_a_failed_upload_is_reported_and_retried_until_it_works(tmp_path):
    manager = CheckpointManager(tmp_path / "here")
    save_steps(manager, 1)
    UnreliableFileSystem.fails = [True] * 5
    notices = upload(manager, "unreliable://bucket/run")
    assert [notice.split("; ")[-1].split(",")[0] for notice in notices[:-1]] == ["failure 1", "failure 2", "failure 4"]
    assert "ConnectionError: the line is dead" in notices[0]
    assert notices[-1] == "upload to unreliable://bucket/run works again"
    assert RemoteCheckpoints("unreliable://bucket/run").follow("latest") == "step_00000001"


def test_a_checkpoint_that_is_being_uploaded_is_not_deleted_until_the_next_save(tmp_path, monkeypatch):
    manager, remote = CheckpointManager(tmp_path, Retention(keep_last=1)), RemoteCheckpoints(URL)
    save_steps(manager, 1)
    upload_now = remote.upload

    def upload_slowly(folder: Path) -> bytes:
        if folder.name == "step_00000001":
            save_steps(manager, 2)  # would delete the first
        return upload_now(folder)

    monkeypatch.setattr(remote, "upload", upload_slowly)
    Uploader(manager, remote).mirror()
    assert [path.name for path in manager.list_checkpoints()] == ["step_00000001", "step_00000002"]
    save_steps(manager, 3)
    assert [path.name for path in manager.list_checkpoints()] == ["step_00000003"]


def test_a_checkpoint_that_vanished_before_its_upload_is_not_pointed_at(tmp_path, monkeypatch):
    manager, remote = CheckpointManager(tmp_path), RemoteCheckpoints(URL)
    save_steps(manager, 1)
    monkeypatch.setattr(manager, "latest", lambda: tmp_path / "step_00000009")
    Uploader(manager, remote).mirror()
    assert remote.follow("latest") is None


class Remarks(Callback):
    def __init__(self):
        self.notices: list[str] = []
        self.longest_step_ms = 0.0

    def on_notice(self, step, message):
        self.notices.append(message)

    def on_step_end(self, record):
        self.longest_step_ms = max(self.longest_step_ms, record.times.step_ms)


def test_training_never_waits_for_a_dead_line_and_says_where_the_checkpoints_are(tmp_path, monkeypatch):
    monkeypatch.setattr("trainkit.saving._LAST_UPLOAD_S", {False: 0.2, True: 0.2})
    monkeypatch.setattr(UnreliableFileSystem, "count", staticmethod(lambda: time.sleep(60)))
    remarks = Remarks()
    manager = CheckpointManager(tmp_path / "checkpoints", remote_url="unreliable://bucket/run")
    began_s = time.monotonic()
    result = make_trainer(World(), make_settings(9, save_every=2), callbacks=[remarks], checkpoints=manager).fit()
    assert time.monotonic() - began_s < 20
    assert result.step == 9
    assert len(remarks.notices) == 1
    assert "could be uploaded" in remarks.notices[0]
    assert str(manager.folder) in remarks.notices[0]
    verify_checkpoint(manager.latest())


def test_a_run_continues_bitwise_on_a_machine_that_has_only_the_upload(tmp_path):
    whole = make_trainer(World(), make_settings(6), dropout=0.3)
    whole.fit()
    here = CheckpointManager(tmp_path / "here", remote_url=URL)
    make_trainer(World(), make_settings(6, save_every=3), dropout=0.3, checkpoints=here).fit()
    shutil.rmtree(here.folder)
    there = make_trainer(World(), make_settings(6), dropout=0.3)
    there.resume(fetch_checkpoint(f"{URL}/step_00000003", tmp_path / "there"))
    there.fit()
    for name, tensor in weights_of(there).items():
        assert tensor.equal(weights_of(whole)[name]), name


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("weights.bin", None, "weights.bin is missing"),
        ("weights.bin", b"other", "weights.bin is truncated"),
        ("weights.bin", bytes(1000), r"weights.bin is corrupt \(its sha256"),
        ("manifest.json", None, "manifest.json is missing"),
        ("manifest.json", b"{", "manifest.json is corrupt"),
    ],
)
def test_damage_on_the_remote_side_is_named_and_nothing_of_it_is_kept(name, damage, message, tmp_path):
    manager = CheckpointManager(tmp_path / "here")
    save_steps(manager, 1)
    upload(manager)
    path = f"/bucket/run/step_00000001/{name}"
    MemoryFileSystem().rm_file(path) if damage is None else MemoryFileSystem().pipe_file(path, damage)
    with pytest.raises(CheckpointError, match=rf"memory://bucket/run/step_00000001: {message}"):
        fetch_checkpoint(f"{URL}/step_00000001", tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_half_a_pointer_is_no_pointer(tmp_path):
    manager = CheckpointManager(tmp_path / "here")
    save_steps(manager, 1)
    upload(manager)
    MemoryFileSystem().pipe_file("/bucket/run/latest", json.dumps({"checkpoint": "step"}).encode()[:9])
    assert fetch_checkpoint(URL, tmp_path / "there").name == "step_00000001"


def test_nothing_there_is_none_and_a_folder_works_like_a_store(tmp_path):
    assert fetch_checkpoint(URL, tmp_path) is None
    manager = CheckpointManager(tmp_path / "here")
    save_steps(manager, 1)
    url = f"file://{tmp_path}/disk/deep"
    assert upload(manager, url) == []
    assert fetch_checkpoint(url, tmp_path / "there").name == "step_00000001"


def test_a_protocol_that_cannot_be_used_says_what_to_install(monkeypatch):
    def lacks_its_package(*_arguments, **_options):
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(ValueError, match=r"ftpx:// *.*unknown protocol ftpx://; use s3://"):
        open_file_system("ftpx://host/folder")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lacks_its_package)
    with pytest.raises(ValueError, match=r"s3:// needs a package that is not installed; .*pip install s3fs"):
        open_file_system("s3://bucket/folder")
