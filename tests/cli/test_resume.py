"""A run that was killed and resumed is, to the last bit, the run that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent.parent
CASES = [
    f"{objective}:{ranks}:{strategy}"
    for objective in ("autoregressive", "masked_diffusion")
    for ranks, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp"))
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Train all cases, each as a whole and as killed and resumed."""
    folder = tmp_path_factory.mktemp("matrix")
    command = [sys.executable, str(ROOT / "tests" / "cli" / "resume_matrix.py"), str(folder), *CASES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_equal(found, expected, where=""):
    """Compare nested values; tensors bit by bit."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_equal(found[key], value, f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_equal(found[index], value, f"{where}/{index}")
    else:
        assert found == expected, where


def losses(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "loss" in key or key == "step"} for line in lines]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_forty_steps_are_seventeen_a_kill_and_the_rest(case, runs):
    whole, cut = (runs / case.replace(":", "_") / name for name in ("whole", "cut"))
    last, early = "step_00000040", "step_00000017"
    for step in (early, last):
        a, b = whole / "checkpoints" / step, cut / "checkpoints" / step
        assert_equal(load_file(b / "model.safetensors"), load_file(a / "model.safetensors"))
        for name in ("optimizer.pt", "rng.pt", "data.pt"):
            assert_equal(torch.load(b / name, weights_only=True), torch.load(a / name, weights_only=True), name)
    assert len(torch.load(cut / "checkpoints" / last / "rng.pt", weights_only=True)) == int(case.split(":")[1])
    trained = [load_file(whole / "checkpoints" / step / "model.safetensors") for step in (early, last)]
    assert not any(torch.equal(trained[0][name], trained[1][name]) for name in trained[0]), "all weights moved"
    assert losses(cut) == losses(whole)
    assert [line["step"] for line in losses(cut) if "loss" in line] == list(range(1, 41))
