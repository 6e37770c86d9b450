"""Cores are counted as the arithmetic they have, not as the threads they run."""

import os

import pytest

from trainkit.distributed import parallel

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")


@needs_affinity
@pytest.mark.parametrize(("allowed", "cores"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2), ({3}, 1), ({0, 1, 7}, 3)])
def test_hardware_threads_of_one_core_count_once(tmp_path, monkeypatch, allowed, cores):
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(parallel, "CPU_FOLDER", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: allowed)
    assert parallel.count_cores() == cores, "of CPU 7 nothing is known, so it is one of its own"
