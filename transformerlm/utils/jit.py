"""How kernels are compiled: once per machine, into a cache folder of their own. Importing this module imports numba.

numba turns each kernel into machine code when it is first called and keeps that in files. The folder's name carries a
digest of the kernels' sources, of numba, Python and the processor, so no stale code is ever loaded; it lies under the
user's cache folder, because the package itself may be installed read-only. The digest also covers where the sources lie
and when they were written, because numba compiles anew when either changes: a second checkout says that it compiles.

With TRANSFORMERLM_CHECKED=1 every array access is checked against its bounds, the unaligned ones included: slow, for
tests, and never cached.
"""

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
from numba import njit

try:
    import fcntl
except ImportError:  # Windows, where processes that start together compile side by side
    fcntl = None

CACHE_VARIABLE = "TRANSFORMERLM_CACHE_DIR"
CHECKED_VARIABLE = "TRANSFORMERLM_CHECKED"
REORDERING = {"reassoc", "contract"}
"""Of fast mathematics what vector sums need; infinities and NaN stay what they are."""
IS_CHECKED = os.environ.get(CHECKED_VARIABLE, "0") not in ("", "0")

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function on its first call; it runs without the GIL, so threads run side by side."""
    return _compile_lazily(function)


def inlined(function: Function) -> Function:
    """Compile a function into each place that calls it: for the small steps of hot loops."""
    return _compile_lazily(function, forceinline=True)


def reordering_kernel(function: Function) -> Function:
    """Compile a function that may take its sums of floating-point numbers in any order."""
    return _compile_lazily(function, fastmath=REORDERING)


def inlined_reordering(function: Function) -> Function:
    """Do the same for one that is compiled into each place that calls it."""
    return _compile_lazily(function, fastmath=REORDERING, forceinline=True)


def parallel_kernel(function: Function) -> Function:
    """Do the same for one whose `prange` loops are shared among threads."""
    return _compile_lazily(function, fastmath=REORDERING, parallel=True)


def _compile_lazily(function: Function, **options: Any) -> Function:
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = before or str(CACHE_FOLDER)  # read while decorating
    try:
        return njit(nogil=True, cache=not IS_CHECKED, boundscheck=IS_CHECKED, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


def prepare(name: str, warm_up: Callable[[], None]) -> None:
    """Have kernels ready: `warm_up` calls each of them once, which compiles it or loads it from the cache.

    Says so on standard error if there is something to compile. Of several processes that start together, one compiles
    and the others wait for it.
    """
    if IS_CHECKED:
        warm_up()
        return
    with _only_one_process(name):
        if not is_compiled(name):
            print(f"compiling kernels for {name}, once on this machine ...", file=sys.stderr)
        warm_up()
        _marker(name).touch()


def is_compiled(name: str) -> bool:
    """Tell whether the kernels prepared under this name wait in the cache."""
    return _marker(name).exists()


def _marker(name: str) -> Path:
    return CACHE_FOLDER / f"{name}.compiled"


@contextmanager
def _only_one_process(name: str) -> Iterator[None]:
    if fcntl is None or is_compiled(name):
        yield
        return
    with (CACHE_FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by dying
        yield


def _digest() -> str:
    """Return what the machine code depends on, as a few hexadecimal digits."""
    digest = hashlib.sha256()
    for source in (Path(__file__), *sorted(Path(__file__).parents[1].glob("*/kernels/*.py"))):
        digest.update(source.read_bytes())
        digest.update(f"{source} {source.stat().st_mtime}".encode())
    versions = (numba.__version__, llvmlite.__version__, platform.python_version())
    processor = (llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten())
    digest.update(repr((versions, processor)).encode())
    return digest.hexdigest()[:16]


def _find_cache_folder() -> Path:
    """Return the first folder that can be written: the one asked for, the user's, or one that ends with the process."""
    for find_root in (_root_asked_for, _root_of_user):
        try:
            if root := find_root():
                folder = root / f"kernels-{_digest()}"
                folder.mkdir(parents=True, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return folder
        except (OSError, RuntimeError):  # the latter for a user without a home
            continue
    return Path(tempfile.mkdtemp(prefix="transformerlm-kernels-"))


def _root_asked_for() -> Path | None:
    root = os.environ.get(CACHE_VARIABLE)
    return Path(root) if root else None


def _root_of_user() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "transformerlm"


CACHE_FOLDER = _find_cache_folder()
