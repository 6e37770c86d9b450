"""The kernels stay inside their buffers: everything again with every access to memory checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHECKED = os.environ | {"TRANSFORMERLM_CHECKED": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.long
def test_checked_kernels_pass_the_kernels_tests_and_fuzzing():
    tests = ["tests/tokenizer/kernels", "tests/tokenizer/test_backends.py"]
    chosen = ["-m", "not slow", "-k", "not compiled_once and not compiled_before and not cache_lies"]
    arguments = ["-q", "-n", "0", "-p", "no:cacheprovider", *tests, *chosen]
    program = (  # one process for both, because compiling with checks takes longer than either
        "import sys, pytest\n"
        f"outcome = pytest.main({arguments})\n"
        "sys.path.insert(0, 'scripts')\n"
        "sys.argv = ['fuzz_tokenizer.py', '--seconds', '10']\n"
        "from fuzz_tokenizer import main\n"
        "sys.exit(outcome or main())\n"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=CHECKED, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-5000:] + process.stderr[-1000:]
    assert "no difference in" in process.stdout


def test_checked_kernels_refuse_to_leave_their_buffers():
    program = (
        "import numpy as np\n"
        "from transformerlm.tokenizer.kernels.memory import load64\n"
        "from transformerlm.utils.jit import kernel\n"
        "@kernel\ndef read(array, offset):\n    return load64(array, offset)\n"
        "print(read(np.arange(2, dtype=np.uint64), 8))\n"
        "read(np.arange(2, dtype=np.uint64), 9)\n"
    )
    process = subprocess.run([sys.executable, "-c", program], env=CHECKED, capture_output=True, text=True, check=False)
    assert process.stdout == "1\n"
    assert "IndexError: a kernel leaves its buffer" in process.stderr
