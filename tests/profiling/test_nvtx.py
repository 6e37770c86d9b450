"""profiling/nvtx.py and profiling/layers.py."""

import os
import subprocess
import sys
import timeit

import pytest
import torch
from torch import nn

from profiling import nvtx as ranges
from profiling.layers import name_layers
from profiling.nvtx import NvtxRecorder, Range, chosen_levels, nvtx_range, recorded_by


class Recording:
    """Remembers what it was told."""

    def __init__(self):
        self.calls = []

    def push(self, name):
        self.calls.append(name)

    def pop(self):
        self.calls.append("end")


class Domain:
    """Stands for an nvtx domain: the package itself needs a profiler to show anything."""

    def __init__(self):
        self.registered, self.calls = [], []

    def get_event_attributes(self, message):
        self.registered.append(message)
        return f"attributes of {message}"

    def push_range(self, attributes):
        self.calls.append(attributes)

    def pop_range(self):
        self.calls.append("end")


@pytest.fixture
def recording():
    recorder = Recording()
    with recorded_by(recorder):
        yield recorder


def run_python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRANSFORMERLM_NVTX")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=False
    )
    return result.stdout.strip(), result.stderr


def test_a_range_that_is_off_is_one_shared_context():
    code = "from profiling.nvtx import nvtx_range; print(nvtx_range('a') is nvtx_range('b', 'fine'))"
    assert run_python(code)[0] == "True"
    assert run_python(code, TRANSFORMERLM_NVTX="0")[0] == "True"


def test_a_range_that_is_off_costs_little():
    def enter_and_leave():
        with nvtx_range("forward"):
            pass

    cost_s = min(timeit.repeat(enter_and_leave, number=1000, repeat=20)) / 1000
    assert cost_s < 2e-6  # about 0.15 us; the margin is for busy machines


def test_importing_ranges_imports_neither_torch_nor_nvtx():
    modules = "profiling.nvtx, profiling.memory, profiling.layers, profiling.trace"
    code = f"import sys, {modules}; print({{'torch', 'nvtx'}} & set(sys.modules))"
    assert run_python(code, TRANSFORMERLM_NVTX="1")[0] == "set()"


@pytest.mark.slow
def test_without_a_gpu_ranges_that_were_asked_for_do_nothing():
    code = "from profiling.nvtx import nvtx_range; print(nvtx_range('a') is nvtx_range('b'))"
    assert run_python(code, TRANSFORMERLM_NVTX="1", CUDA_VISIBLE_DEVICES="")[0] == "True"


def test_without_the_nvtx_package_ranges_do_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ranges, "_listening", ranges._Listening(frozenset({"coarse"})))
    assert nvtx_range("a") is nvtx_range("b")


def test_with_a_gpu_and_the_package_ranges_reach_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ranges, "_listening", ranges._Listening(frozenset({"coarse"})))
    with nvtx_range("a"):
        assert isinstance(nvtx_range("a"), Range)


def test_an_unknown_level_in_the_environment_is_named():
    errors = run_python("import profiling.nvtx", TRANSFORMERLM_NVTX="1", TRANSFORMERLM_NVTX_LEVEL="all")[1]
    assert "must be coarse, fine or verbose, got 'all'" in errors


@pytest.mark.parametrize(
    ("switch", "finest", "levels"),
    [
        (None, "verbose", set()),
        ("0", None, set()),
        ("1", None, {"coarse"}),
        ("1", "fine", {"coarse", "fine"}),
        ("1", "verbose", {"coarse", "fine", "verbose"}),
    ],
)
def test_a_level_records_itself_and_all_coarser_ones(switch, finest, levels):
    assert chosen_levels(switch, finest) == levels


def test_nested_and_repeated_ranges_push_and_pop_in_turn(recording):
    with nvtx_range("step"), nvtx_range("forward"):
        pass
    with nvtx_range("step"):
        pass
    assert recording.calls == ["step", "forward", "end", "end", "step", "end"]


def test_a_range_is_closed_when_its_body_raises(recording):
    with pytest.raises(KeyError), nvtx_range("step"):
        raise KeyError
    assert recording.calls == ["step", "end"]


def test_a_name_is_registered_once():
    domain = Domain()
    recorder = NvtxRecorder(domain)
    for _ in range(2):
        recorder.push("step")
        recorder.pop()
    assert domain.registered == ["step"]
    assert domain.calls == ["attributes of step", "end", "attributes of step", "end"]


def test_a_finer_range_than_chosen_is_left_out(recording):
    with nvtx_range("layer", level="fine"):
        pass
    assert recording.calls == []


def test_recording_ends_with_its_block(recording):
    inner = Recording()
    with recorded_by(inner, "fine"), nvtx_range("inside", "fine"):
        pass
    with nvtx_range("outside"):
        pass
    assert (inner.calls, recording.calls) == (["inside", "end"], ["outside", "end"])


class Layer(nn.Module):
    """Two parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        """x: [batch, 4]."""
        return self.second(self.first(x))


@pytest.mark.parametrize(
    ("finest", "expected"),
    [
        ("coarse", []),
        ("fine", ["layer 0", "end", "layer 1", "end"]),
        ("verbose", [*(["layer 0", "first", "end", "second", "end", "end"]), "layer 1"]),
    ],
)
def test_layers_and_their_parts_are_named_by_hooks(finest, expected):
    recorder, layers = Recording(), nn.Sequential(Layer(), Layer())
    with recorded_by(recorder, finest):
        handles = name_layers(layers)
        layers(torch.ones(1, 4)).sum().backward()
    assert recorder.calls[: len(expected)] == expected
    assert recorder.calls.count("end") * 2 == len(recorder.calls)
    for handle in handles:
        handle.remove()
    with recorded_by(recorder, finest):
        recorder.calls.clear()
        layers(torch.ones(1, 4))
    assert recorder.calls == []


@pytest.mark.slow
def test_named_layers_compile_without_a_break_and_stay_silent():
    recorder, layers = Recording(), nn.Sequential(Layer(), Layer())
    x = torch.ones(1, 4)
    expected = layers(x)
    with recorded_by(recorder, "verbose"):
        name_layers(layers)
        compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)
    assert recorder.calls == []
