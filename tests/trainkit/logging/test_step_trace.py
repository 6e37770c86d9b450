"""trainkit/logging/step_trace.py."""

import gzip
import json

import pytest
import torch
from torch import nn

from profiling.nvtx import nvtx_range
from trainkit.logging.step_trace import StepTrace


@pytest.fixture
def layers():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def do_steps(trace, layers, steps):
    """Call the callback as a run does, with a forward and backward in each step."""
    for step in steps:
        trace.on_step_start(step)
        with nvtx_range("forward"):
            loss = layers(torch.ones(2, 3)).sum()
        with nvtx_range("backward"):
            loss.backward()
    trace.on_train_end(max(steps))


def read(path):
    """Return the names of a trace's events, ranges as often as they occur."""
    with gzip.open(path, "rt") as file:
        return [event.get("name") for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def test_a_trace_holds_the_chosen_steps_their_phases_layers_and_operations(tmp_path, layers):
    do_steps(StepTrace(tmp_path, (2, 3), layers), layers, range(1, 6))
    names = read(tmp_path / "trace_steps_2_3.json.gz")
    assert [names.count(name) for name in ("forward", "backward", "layer 0", "layer 1")] == [2, 2, 2, 2]
    assert any(name.startswith("aten::") for name in names)


def test_a_run_that_ends_earlier_leaves_what_it_did(tmp_path, layers):
    do_steps(StepTrace(tmp_path, (2, 9), layers), layers, range(1, 5))
    assert read(tmp_path / "trace_steps_2_4.json.gz").count("forward") == 3


def test_a_session_that_begins_behind_the_range_writes_nothing(tmp_path, layers):
    do_steps(StepTrace(tmp_path, (2, 3), layers), layers, range(7, 9))
    assert list(tmp_path.iterdir()) == []


def test_layers_are_as_before_afterwards(tmp_path, layers):
    do_steps(StepTrace(tmp_path, (1, 1), layers), layers, range(1, 3))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, layers):
    with pytest.warns(UserWarning, match="no trace was written"):
        do_steps(StepTrace(tmp_path / "missing", (1, 1), layers), layers, range(1, 3))
