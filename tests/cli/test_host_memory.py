"""Memory that a program gave back is there again without page faults."""

import subprocess
import sys

import pytest

from cli.host_memory import keep_freed_memory

PROGRAM = """
import resource, sys
import numpy
from cli.host_memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
faults = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [numpy.ones(16_000_000, numpy.uint8) for _ in range(4)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(max(faults[2:]))
"""


def count_faults(how: str) -> int:
    """Return the page faults of allocating 64 MB that were used before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library has no such setting")
    return int(done.stdout)


def test_freed_blocks_are_used_again():
    assert count_faults("keep") < 100
    assert count_faults("leave") > 1000, "the setting would not be needed"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
