"""The rooms of the house, and who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "config": {"transformerlm", "trainkit", "cli", "benchmarking", "profiling", "torch"},
    "transformerlm": {"trainkit", "config", "cli", "benchmarking"},
    "trainkit": {"transformerlm", "config", "cli", "benchmarking"},
    "profiling": {"transformerlm", "trainkit", "config", "cli", "benchmarking"},
}


def find_crossings(source: str, package: str) -> list[str]:
    """Return the imported packages that `package` must not know."""
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.append(node.module or "")
    return [name for name in imported if name.partition(".")[0] in FORBIDDEN[package]]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_in_the_allowed_directions(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    crossings = {str(path.relative_to(ROOT)): find_crossings(path.read_text("utf-8"), package) for path in files}
    assert not {path: names for path, names in crossings.items() if names}


def test_a_crossing_would_be_seen():
    source = "def f():\n    from transformerlm.tokenizer import Tokenizer\n    import trainkit.data as d"
    assert find_crossings(source, "trainkit") == ["transformerlm.tokenizer"]
    assert find_crossings(source, "transformerlm") == ["trainkit.data"]
