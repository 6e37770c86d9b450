"""docs/config.md."""

from config.describe import leaf_paths
from config.reference import COMMANDS, render_reference


def test_the_reference_is_up_to_date(root):
    written = (root / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == render_reference(), "run: python -m config.reference > docs/config.md"


def test_every_key_is_in_the_reference():
    reference = render_reference()
    names = {path.rpartition(".")[2] for schema in COMMANDS.values() for path, _ in leaf_paths(schema)}
    assert [name for name in sorted(names) if f"| `{name}` |" not in reference] == []
