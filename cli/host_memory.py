"""Keep the memory that tensors on a CPU gave back, instead of returning it to the system after every operation.

glibc hands each large block back as soon as it is freed, and gets fresh pages, zeroed and mapped one by one, for the
next one: 10,000 to 30,000 page faults in a step of a small model (docs/performance.md). What is kept is what the step
needs again at once, so the peak stays the same. The setting holds for the whole process, so programs choose it, not
libraries.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_KEPT = 2**31 - 1
_MMAP_ABOVE = (2**30, 2**25)
"""Blocks above this are mapped on their own; older versions of glibc take no more than the second."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; returns whether it will, which other C libraries do not know how to."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _MMAP_ABOVE) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
