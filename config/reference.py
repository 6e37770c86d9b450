"""Print the reference of all configuration keys as Markdown: `python -m config.reference > docs/config.md`."""

from collections.abc import Iterable, Iterator

from pydantic.fields import FieldInfo

from config.describe import describe_field, describe_value
from config.roots import (
    BenchInferConfig,
    BenchTokenizerConfig,
    BenchTrainConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    InferConfig,
    PrepareDataConfig,
    SweepConfig,
    TrainConfig,
    TrainTokenizerConfig,
)
from config.section import Section, choices, subsections

COMMANDS: dict[str, type[Section]] = {
    "transformerlm-train": TrainConfig,
    "transformerlm-infer": InferConfig,
    "transformerlm-eval": EvalConfig,
    "transformerlm-train-tokenizer": TrainTokenizerConfig,
    "transformerlm-prepare-data": PrepareDataConfig,
    "transformerlm-bench-infer": BenchInferConfig,
    "transformerlm-bench-train": BenchTrainConfig,
    "transformerlm-sweep": SweepConfig,
    "transformerlm-export": ExportConfig,
    "transformerlm-import": ImportConfig,
    "transformerlm-bench-tokenizer": BenchTokenizerConfig,
}
INTRODUCTION = """\
# Configuration

Every command reads one TOML file: `--config FILE`. A file may build on another with `extends = "base.toml"` (a path
relative to itself), and `--set section.key=value` changes single keys. `--print-config` shows the result. All other
paths are relative to the folder the command is started in.

Written by `python -m config.reference`.
"""


def render_reference() -> str:
    """Return the reference as Markdown: for each command its sections, for each section a table of its keys."""
    lines = [INTRODUCTION]
    told: dict[type[Section], str] = {}  # section -> the command whose chapter has its table
    for command, root in COMMANDS.items():
        lines += [f"## {command}", "", root.__doc__.strip(), ""]
        for title, section in _titled_sections(root):
            if told.get(section) == command:
                continue
            keys = [f"Keys as for {told[section]}."] if section in told else _table(section)
            lines += [f"### {title}", "", section.__doc__.strip(), "", *keys, ""]
            told.setdefault(section, command)
    return "\n".join(lines).rstrip() + "\n"


def _titled_sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Yield every section below another with the heading it gets, all choices of a union in turn."""
    for name, field in section.model_fields.items():
        for inner in subsections(field):
            choice = ""
            if field.discriminator:
                choice = f' {field.discriminator} = "{choices(inner, field.discriminator)[0]}"'
            yield f"[{prefix}{name}]{choice}", inner
            yield from _titled_sections(inner, f"{prefix}{name}.")


def _table(section: type[Section]) -> Iterable[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        if not subsections(field):
            cells = (f"`{name}`", describe_field(field), _default(field), field.description)
            yield "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    """Return the default; nothing where the description tells it."""
    if field.is_required():
        return "required"
    is_told = field.default is None or field.default_factory is not None
    return "" if is_told else f"`{describe_value(field.default)}`"


if __name__ == "__main__":
    print(render_reference(), end="")
