"""Peaks are dense and belong to the device that is there; what is unknown stays unknown."""

import resource

import pytest
import torch

from trainkit.hardware import Utilisation, find_peak, peak_memory_mb


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H200", torch.bfloat16, 989e12),
        ("NVIDIA H200", torch.float32, 67e12),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989e12),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H100 NVL", torch.bfloat16, 835e12),
        ("NVIDIA A100-SXM4-80GB", torch.float16, 312e12),
        ("NVIDIA L4", torch.bfloat16, 121e12),
        ("NVIDIA L40S", torch.bfloat16, 362e12),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165e12),
        ("NVIDIA A10G", torch.bfloat16, None),
        ("NVIDIA L40", torch.bfloat16, None),
        ("Tesla V100-SXM2-16GB", torch.bfloat16, None),
        ("Tesla V100-SXM2-16GB", torch.float16, 125e12),
        ("Some Future GPU", torch.bfloat16, None),
    ],
)
def test_a_device_is_found_by_its_name_and_none_is_taken_for_another(name, dtype, peak):
    assert find_peak(name, dtype) == peak


def test_float32_has_the_tf32_peak_only_where_tf32_is_allowed():
    assert find_peak("NVIDIA H100 80GB HBM3", torch.float32, is_tf32=True) == 494e12


def test_mfu_is_the_models_work_over_the_peak_of_all_devices():
    used = Utilisation(6e9, "NVIDIA H100 80GB HBM3", 8, torch.bfloat16, 989e12)
    # A model of 1e9 weights: 6 operations per weight and token. 400,000 tokens/s on 8 devices.
    assert used.mfu(400_000) == pytest.approx(0.3033, abs=1e-4)
    assert used.describe("tokens") == (
        "MFU = 6000 MFLOP x tokens/s / (8 x 989 TFLOP/s (dense bfloat16 peak of NVIDIA H100 80GB HBM3))"
    )


def test_mfu_is_none_where_the_device_or_the_work_is_unknown():
    on_cpu = Utilisation.of(torch.device("cpu"), 1, torch.float32, 1e6)
    assert on_cpu.mfu(1e6) is None
    assert "the dense float32 peak of cpu is not known, so mfu is null" in on_cpu.describe("tokens")
    unknown_work = Utilisation(None, "NVIDIA H200", 1, torch.bfloat16, 989e12)
    assert unknown_work.mfu(1e6) is None
    assert unknown_work.describe().startswith("MFU unknown")


def test_peak_memory_on_a_cpu_is_that_of_the_process():
    assert peak_memory_mb(torch.device("cpu")) >= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - 1
