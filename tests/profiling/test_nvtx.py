"""profiling/nvtx.py."""

import os
import subprocess
import sys

import pytest

from profiling import nvtx as ranges
from profiling.nvtx import Range, chosen_levels, nvtx_range


class RecordingDomain:
    """Stands for an nvtx domain, and remembers what it was told."""

    def __init__(self):
        self.calls = []

    def get_event_attributes(self, message):
        return message

    def push_range(self, attributes):
        self.calls.append(("push", attributes))

    def pop_range(self):
        self.calls.append(("pop",))


@pytest.fixture
def recording(monkeypatch):
    domain = RecordingDomain()
    monkeypatch.setattr(ranges, "_DOMAIN", domain)
    monkeypatch.setattr(ranges, "_LEVELS", frozenset({"coarse"}))
    ranges._named_range.cache_clear()
    yield domain
    ranges._named_range.cache_clear()


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


def test_importing_ranges_imports_neither_torch_nor_nvtx():
    code = "import sys, profiling.nvtx, profiling.memory; print({'torch', 'nvtx'} & set(sys.modules))"
    assert run_python(code)[0] == "set()"


def test_the_environment_switches_ranges_on():
    code = "from profiling.nvtx import nvtx_range\nwith nvtx_range('a') as r: print(type(nvtx_range('a')).__name__)"
    assert run_python(code, TRANSFORMERLM_NVTX="1")[0] == "Range"


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
    assert recording.calls == [
        ("push", "step"), ("push", "forward"), ("pop",), ("pop",), ("push", "step"), ("pop",),
    ]  # fmt: skip


def test_a_range_is_closed_when_its_body_raises(recording):
    with pytest.raises(KeyError), nvtx_range("step"):
        raise KeyError
    assert recording.calls == [("push", "step"), ("pop",)]


def test_a_name_is_registered_once(recording):
    assert nvtx_range("step") is nvtx_range("step")
    assert isinstance(nvtx_range("step"), Range)


def test_a_finer_range_than_chosen_is_left_out(recording):
    with nvtx_range("layer", level="fine"):
        pass
    assert recording.calls == []
