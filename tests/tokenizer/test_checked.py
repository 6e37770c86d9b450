"""The kernels stay inside their buffers: everything again with every access to memory checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHECKED = os.environ | {"TRANSFORMERLM_CHECKED": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_checked_kernels_pass_the_kernels_tests():
    tests = ["tests/tokenizer/kernels", "tests/tokenizer/test_backends.py"]
    chosen = ["-m", "not slow", "-k", "not compiled_once and not compiled_before and not cache_lies"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests, *chosen]
    process = subprocess.run(command, env=CHECKED, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-5000:]


@pytest.mark.slow
def test_fuzzing_finds_no_difference_and_no_access_outside():
    command = [sys.executable, "scripts/fuzz_tokenizer.py", "--seconds", "10"]
    process = subprocess.run(command, env=CHECKED, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("no difference in")


def test_checked_kernels_refuse_to_leave_their_buffers():
    program = (
        "import numpy as np\n"
        "from transformerlm.tokenizer.kernels.memory import load64\n"
        "from transformerlm.tokenizer.kernels.jit import kernel\n"
        "@kernel\ndef read(array, offset):\n    return load64(array, offset)\n"
        "print(read(np.arange(2, dtype=np.uint64), 8))\n"
        "read(np.arange(2, dtype=np.uint64), 9)\n"
    )
    process = subprocess.run([sys.executable, "-c", program], env=CHECKED, capture_output=True, text=True, check=False)
    assert process.stdout == "1\n"
    assert "IndexError: a kernel leaves its buffer" in process.stderr
