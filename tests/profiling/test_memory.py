"""profiling/memory.py."""

import json
import pickle

import pytest

from profiling import memory


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(memory, "has_cuda", lambda: False)


def test_without_a_gpu_everything_answers_and_writes_nothing(no_gpu, tmp_path):
    assert memory.start_history() is False
    assert memory.start_history(True) is False
    assert memory.start_history(False) is False
    assert memory.reset_peaks() is False
    assert memory.summary() == ""
    assert memory.peaks() == memory.MemoryPeaks(allocated_bytes=0, reserved_bytes=0)
    assert memory.dump_snapshot(tmp_path / "deep" / "snapshot.pickle") is False
    assert memory.dump_snapshot(tmp_path / "alloc_history.json") is False
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_of_unknown_suffix_is_refused_even_without_a_gpu(no_gpu, tmp_path):
    with pytest.raises(ValueError, match=r"snapshot\.txt: a memory snapshot ends in \.pickle .* or \.json"):
        memory.dump_snapshot(tmp_path / "snapshot.txt")


@pytest.mark.gpu
def test_on_a_gpu_peaks_follow_allocations_and_snapshots_can_be_read(tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    assert memory.reset_peaks()
    before = memory.peaks().allocated_bytes
    assert memory.start_history()
    held = torch.zeros(2**20, device="cuda")
    assert memory.peaks().allocated_bytes >= before + held.nbytes
    assert "GPU" in memory.summary() or "Allocated" in memory.summary()
    assert memory.dump_snapshot(tmp_path / "a.json")
    assert "segments" in json.loads((tmp_path / "a.json").read_text())
    assert memory.dump_snapshot(tmp_path / "a.pickle")
    assert "segments" in pickle.loads((tmp_path / "a.pickle").read_bytes())
    assert memory.start_history(False)
