"""benchmarking/gpu_report.sh, as far as a CPU can run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ONLY_THE_FOUR = """
import importlib.machinery, runpy, sys
MISSING = {"safetensors", "tqdm", "numba", "datasets", "regex", "wandb", "tomli_w", "shtab", "fsspec",
           "backports.zstd", "nvtx", "huggingface_hub", "transformers", "tokenizers", "pytest", "hypothesis",
           "llvmlite"}
class Installed(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if MISSING & {name, name.partition(".")[0]} else super().find_spec(name, path, target)
sys.meta_path[:] = [Installed if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
sys.argv[1:] = ["--cpu-dry-run", "--output", sys.argv[1]]
runpy.run_module("benchmarking.gpu_report", run_name="__main__")
"""


@pytest.mark.long
def test_a_dry_run_with_torch_numpy_pydantic_and_tomli_alone_fills_every_row(tmp_path):
    path = tmp_path / "report.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", ONLY_THE_FOUR, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    report = path.read_text()
    assert done.returncode == 0, f"{done.stderr}\n{report}"
    assert "0 not as they should be" in report
    for row in ("1B, autoregressive", "124M, block_diffusion", "bitwise resume, deterministic algorithms"):
        assert f"\n| {row} |" in report


@pytest.mark.slow
def test_without_a_gpu_it_says_how_to_try_it():
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [ROOT / "benchmarking" / "gpu_report.sh"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "torch sees no GPU here; --cpu-dry-run" in done.stderr
