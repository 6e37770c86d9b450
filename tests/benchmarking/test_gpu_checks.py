"""The checks that only a GPU can fail, run there; and on a CPU, where the paths without CUDA are the same."""

import pytest
import torch

from benchmarking.gpu_checks import CHECKS

ALSO_ON_A_CPU = [name for name in CHECKS if "FlexAttention" not in name]  # it has no backward pass there
SLOW = ("compiled equals eager", "CUDA-graph decoding equals eager", "no step waits for the GPU")


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHECKS)
def test_on_a_gpu(name):
    CHECKS[name](torch.device("cuda"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ALSO_ON_A_CPU]
)
def test_on_a_cpu(name):
    CHECKS[name](torch.device("cpu"))
