"""The litmus test: a regressor on plain tensors, trained with trainkit alone, as its README shows."""

import ast
import re
from pathlib import Path

import trainkit

ROOM = Path(trainkit.__file__).parent
OURS = {"transformerlm", "config", "cli", "benchmarking"}


def readme_example() -> str:
    return re.search(r"```python\n(.*?)```", (ROOM / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_readme_example_trains_a_regressor(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(readme_example(), "trainkit/README.md", "exec"), {"__name__": "example"})
    assert "found the slope" in capsys.readouterr().out
    assert (tmp_path / "runs" / "latest" / "checkpoints" / "latest" / "model.safetensors").exists()


def test_trainkit_imports_nothing_of_ours():
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & OURS, path
