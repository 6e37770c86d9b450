"""Keep a run's checkpoints in an object store, or in any file system that fsspec knows: s3://, gs://, file://, memory://.

<url>/step_00000500/...              the checkpoint's files, manifest.json last: without it a folder is no checkpoint
<url>/latest, <url>/best             small objects that hold the name of a complete checkpoint, written after it
"""

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from trainkit.checkpointing import storage
from trainkit.checkpointing.manager import BEST, LATEST, is_checkpoint_name
from trainkit.checkpointing.manifest import MANIFEST_NAME, Manifest, parse_manifest, verify_manifest
from trainkit.errors import CheckpointError

if TYPE_CHECKING:
    import fsspec

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def is_url(text: str) -> bool:
    """Tell whether a text names a place by its protocol, such as s3://bucket/run, and not a local path."""
    return "://" in text


def open_file_system(url: str) -> "tuple[fsspec.AbstractFileSystem, str]":
    """Return fsspec's file system for a URL, and the path in it.

    Raises ValueError if the protocol is unknown or its package is not installed.
    """
    import fsspec  # only runs with a remote place need it

    protocol = url.split("://", 1)[0]
    options = {"auto_mkdir": True} if protocol == "file" else {}
    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package = PACKAGES.get(protocol)
        remedy = f"install the package {package}: pip install {package}" if package else str(error)
        raise ValueError(f"{url}: {protocol}:// needs a package that is not installed; {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{url}: unknown protocol {protocol}://; use s3://, gs:// or file://") from error


class RemoteCheckpoints:
    """The checkpoints of one run at a URL. Every method may raise what the file system raises."""

    def __init__(self, url: str):
        """Connect to nothing yet; raises ValueError if the URL's protocol cannot be used."""
        self.url = url.rstrip("/")
        self.file_system, root = open_file_system(self.url)
        self.root = root.rstrip("/")

    def list_complete(self) -> dict[str, bytes]:
        """Return the complete checkpoints: name -> content of manifest.json, oldest first."""
        self.file_system.invalidate_cache()
        try:
            entries = self.file_system.ls(self.root, detail=False)
        except FileNotFoundError:
            return {}
        names = sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        contents = {name: self._read(f"{name}/{MANIFEST_NAME}") for name in names if is_checkpoint_name(name)}
        return {name: content for name, content in contents.items() if content is not None}

    def upload(self, folder: Path) -> bytes:
        """Copy a complete local checkpoint, its manifest last; returns the content of the manifest."""
        content = (folder / MANIFEST_NAME).read_bytes()
        for name in parse_manifest(content, folder).files:
            self.file_system.put_file(str(folder / name), f"{self.root}/{folder.name}/{name}")
        self._write(f"{folder.name}/{MANIFEST_NAME}", content)
        return content

    def point(self, pointer: str, name: str) -> None:
        """Let `latest` or `best` name a checkpoint that is complete."""
        self._write(pointer, json.dumps({"checkpoint": name}).encode())

    def follow(self, pointer: str) -> str | None:
        """Return the checkpoint that `latest` or `best` names, or None if there is no such pointer, or half of one."""
        try:
            return str(json.loads(self._read(pointer) or b"")["checkpoint"])
        except (ValueError, KeyError, TypeError):
            return None

    def delete(self, name: str) -> None:
        """Delete a checkpoint, its manifest first."""
        self.file_system.rm_file(f"{self.root}/{name}/{MANIFEST_NAME}")
        self.file_system.rm(f"{self.root}/{name}", recursive=True)

    def download(self, name: str, checkpoints: Path) -> Path:
        """Copy a checkpoint into a local folder of checkpoints and verify it; returns its folder.

        Raises CheckpointError if it is incomplete or damaged.
        """
        final, temporary = checkpoints / name, checkpoints / f".{name}.partial"
        if temporary.exists():
            storage.remove_folder(temporary)
        storage.create_folder(temporary)
        try:
            self._download_files(name, temporary)
            verify_manifest(temporary)
        except CheckpointError as error:
            storage.remove_folder(temporary)
            raise CheckpointError(str(error).replace(str(temporary), f"{self.url}/{name}")) from error
        if final.exists():
            storage.remove_folder(final)
        storage.rename(temporary, final)
        storage.sync_folder(checkpoints)
        return final

    def _download_files(self, name: str, target: Path) -> None:
        content = self._read(f"{name}/{MANIFEST_NAME}")
        if content is None:
            raise CheckpointError(f"checkpoint {self.url}/{name}: {MANIFEST_NAME} is missing, so it is not complete")
        for file_name in self.parse(name, content).files:
            (target / file_name).parent.mkdir(parents=True, exist_ok=True)
            try:
                self.file_system.get_file(f"{self.root}/{name}/{file_name}", str(target / file_name))
            except FileNotFoundError as error:
                raise CheckpointError(f"checkpoint {self.url}/{name}: {file_name} is missing") from error
            storage.sync_file(target / file_name)
        storage.write_file(target / MANIFEST_NAME, content)
        storage.sync_file(target / MANIFEST_NAME)

    def parse(self, name: str, content: bytes) -> Manifest:
        """Read a manifest; raises CheckpointError if it is damaged."""
        return parse_manifest(content, f"{self.url}/{name}")

    def _read(self, name: str) -> bytes | None:
        try:
            return self.file_system.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        self.file_system.pipe_file(f"{self.root}/{name}", content)


class Attempt:
    """Keep an error of the block instead of raising it.

    Deliberately broad: every kind of file system raises errors of its own, and no list of them would be complete.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None


def fetch_checkpoint(url: str, checkpoints: Path, prefer: str = LATEST) -> Path | None:
    """Download a run's latest or best checkpoint, or the one that a URL names; None if there is none.

    Where the pointer is missing the newest complete one is taken. Raises CheckpointError if it is damaged or the place
    cannot be read, ValueError if the protocol cannot be used.
    """
    attempt = Attempt()
    with attempt:
        return _fetch(url.rstrip("/"), checkpoints, prefer)
    if isinstance(attempt.error, ValueError):
        raise attempt.error
    reason = f"{type(attempt.error).__name__}: {attempt.error}"
    raise CheckpointError(f"checkpoint {url}: cannot be downloaded ({reason})") from attempt.error


def _fetch(url: str, checkpoints: Path, prefer: str) -> Path | None:
    parent, _, name = url.rpartition("/")
    if is_checkpoint_name(name):
        return RemoteCheckpoints(parent).download(name, checkpoints)
    if name in (LATEST, BEST):
        url, prefer = parent, name
    remote = RemoteCheckpoints(url)
    name = remote.follow(prefer) or next(reversed(remote.list_complete()), None)
    return None if name is None else remote.download(name, checkpoints)
