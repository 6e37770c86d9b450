"""--set section.key=value: one key changed on the command line, checked like the rest."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any

import tomli

from config.describe import plain_types
from config.section import Section, choose_class, subsections

ORIGIN = "--set"


class OverrideError(ValueError):
    """An argument of --set that is not of the form section.key=value."""


def read_overrides(arguments: Iterable[str], root: type[Section]) -> dict[str, Any]:
    """Return the table that these `section.key=value` arguments write; later ones win.

    Unknown keys are left for the schema to report. Raises OverrideError for an argument without key or "=".
    """
    table: dict[str, Any] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise OverrideError(
                f"--set {argument}: must look like section.key=value, for example --set training.max_steps=100"
            )
        *sections, last = keys
        place = table
        for name in sections:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        place[last] = parse_value(text.strip(), _accepts_text(root, keys))
    return table


def parse_value(text: str, is_text_wanted: bool = False) -> Any:
    """Return the TOML value that `text` writes, or `text` itself where it is none.

    With `is_text_wanted` a number or a date stays text: a run may be called 2024.
    """
    try:
        table = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    value = table["value"]
    is_scalar = isinstance(value, bool | int | float | date | datetime | time)
    return text if len(table) > 1 or (is_text_wanted and is_scalar) else value


def _accepts_text(section: type[Section], keys: list[str]) -> bool:
    """Return whether the key at this path, of any choice, holds free text."""
    name, *rest = keys
    if name not in section.model_fields:
        return False
    field = section.model_fields[name]
    if rest:
        return any(_accepts_text(inner, rest) for inner in subsections(field))
    return str in plain_types(field.annotation)


def merge(base: Mapping[str, Any], over: Mapping[str, Any], section: type[Section] | None) -> dict[str, Any]:
    """Return `base` with the values of `over`, table by table.

    Where `over` makes another choice (objective.name, data.pipeline_mode), the keys of `base` that belong to the
    former choice only are left out: they were right where they were written, and mean nothing now.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            field = section.model_fields.get(key) if section else None
            former = choose_class(field, below) if field else None
            chosen = choose_class(field, {**below, **value}) if field else None
            if former and chosen:
                left_out = former.model_fields.keys() - chosen.model_fields.keys()
                below = {name: each for name, each in below.items() if name not in left_out}
            merged[key] = merge(below, value, chosen)
        else:
            merged[key] = value
    return merged
