"""docs/python_api.md, run from top to bottom as a reader would, and the promises it makes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import transformerlm
from cli.train import main

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8"), re.DOTALL)

OVERRIDES = [
    "model.d_model=32",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.context_length=64",
    "training.max_steps=2",
    "training.skip_validation=true",
    "optimizer.warmup_steps=1",
    "sampling.prompts=[]",
]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["autoregressive", "masked_diffusion"])
def test_the_snippets_run_in_order(tmp_path, monkeypatch, capsys, objective):
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    overrides = [part for each in (*OVERRIDES, f"objective.name={objective}") for part in ("--set", each)]
    assert main(["--config", "config/resources/train.toml", *overrides]) == 0
    names = {"__name__": "notebook"}
    assert len(BLOCKS) == 8
    for block in BLOCKS:
        exec(compile(block, "docs/python_api.md", "exec"), names)
    out = capsys.readouterr().out
    assert "['Once', ' upon', ' a', ' time', ',']" in out
    assert ("Qwen3ForCausalLM" if objective == "autoregressive" else "MaskedDiffusionLM") in out


def test_the_first_snippet_needs_no_run_and_no_torch(tmp_path):
    code = f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\n{BLOCKS[0]}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n")


def test_importing_the_package_loads_nothing():
    code = "import sys; before = set(sys.modules); import transformerlm; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    new = [name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names]
    assert new == ["transformerlm"]


def test_completion_offers_the_public_names():
    assert set(transformerlm.__all__) <= set(dir(transformerlm))


@pytest.mark.parametrize("package", ["transformerlm", "trainkit"])
def test_type_hints_are_shipped(package):
    assert (ROOT / package / "py.typed").is_file()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["build-backend"]
    assert package in build["module-name"]
