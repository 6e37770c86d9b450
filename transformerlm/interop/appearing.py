"""Files and folders that appear when they are whole, and the error of everything that cannot be carried over."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ForeignModelError(ValueError):
    """A model that cannot be expressed on the other side; the message says what differs."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `path` when all went well, and vanishes otherwise.

    Raises ForeignModelError if the name is taken by a file or by a folder that is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ForeignModelError(f"{path} holds something already; choose a new name")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    _remove(unfinished)
    try:
        yield unfinished
        if path.is_dir():
            path.rmdir()
        unfinished.rename(path)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
