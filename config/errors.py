"""Tell a user what is wrong with a configuration: one line per problem, all of them at once.

training.batch_sise: unknown setting; did you mean batch_size?
model.num_layers: must be an integer > 0, got "4"; write 4, without quotes
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config.describe import describe_field, describe_value, leaf_paths, plain_types
from config.overrides import parse_value
from config.section import Location, Section, choices, subsections
from config.words import join_and, join_or, with_article


class ConfigProblems(ValueError):
    """A configuration that cannot be used; `lines` says why, a problem each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Written:
    """What was given, and where each value comes from."""

    table: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted path -> "--set" or a base file; absent for values of the file itself."""

    def find(self, path: str) -> Any:
        """Return the value at a dotted path, None if there is none."""
        value: Any = self.table
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def show(self, path: str) -> str:
        """Return the value at a dotted path for a message, and where it comes from."""
        return describe_value(self.find(path)) + self.name_origins([path])

    def name_origins(self, paths: list[str]) -> str:
        """Return " (from --set)", or which of several values come from elsewhere; nothing if none does."""
        found = {path: origin for path in paths if (origin := self._origin(path))}
        if list(found) == paths[:1]:
            return f" (from {found[paths[0]]})"
        return f" ({', '.join(f'{path} from {origin}' for path, origin in found.items())})" if found else ""

    def _origin(self, path: str) -> str | None:
        return next((origin for leaf, origin in self.origins.items() if f"{leaf}.".startswith(f"{path}.")), None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the schema an error stands."""

    path: str  # dotted, as the user writes it
    section: type[Section]  # the innermost section on the way
    field: FieldInfo | None  # the key; None if the schema has no such key
    choice: FieldInfo | None = None  # the discriminated union that the section is a member of


def explain(error: ValidationError, root: type[Section], written: Written) -> list[str]:
    """Return a line for each problem: where it is, what is wrong, what was given, and what to do."""
    lines: dict[str, str] = {}  # by path: the members of a union each complain about the same value
    for details in error.errors(include_url=False):
        if details["type"] == "default_factory_not_called":
            continue  # a default that waits for a faulty key is no news beside that key
        place = locate(root, details["loc"])
        is_choice = details["type"].startswith("union_tag")  # pydantic points at the table, not at the key
        path = f"{place.path}.{place.field.discriminator}" if is_choice else place.path
        lines.setdefault(path, f"{path}: {_explain_one(details, place, root, written)}")
    return list(lines.values())


def locate(root: type[Section], location: Location) -> Place:
    """Find where pydantic's location stands: it also names choices and members of unions on the way."""
    section, choice, names, rest = root, None, [], list(location)
    while True:
        names.append(str(rest.pop(0)))
        info = section.model_fields.get(names[-1])
        inner = subsections(info) if info else ()
        if not rest or not inner:
            return Place(".".join(names), section, info, choice)
        named = [each for each in inner if info.discriminator and rest[0] in choices(each, info.discriminator)]
        if named:
            del rest[0]
        section = (named or [each for each in inner if rest[0] in each.model_fields] or inner)[0]
        choice = info if info.discriminator else None


def _explain_one(details: ErrorDetails, place: Place, root: type[Section], written: Written) -> str:
    """Return what follows the path in a line."""
    match details["type"]:
        case "broken_rule":
            return _explain_rule(details, place, written)
        case "extra_forbidden":
            return _explain_unknown(place, root, written)
        case "missing" if written.find(place.path) is None:  # otherwise a list is too short
            return _explain_missing(place)
        case "union_tag_invalid" | "union_tag_not_found":
            return _explain_choice(place, written)
    if subsections(place.field):
        return f"must be a table [{place.path}], got {written.show(place.path)}"
    return _explain_value(place, written)


def _explain_rule(details: ErrorDetails, place: Place, written: Written) -> str:
    subject, *others = details["ctx"]["paths"]
    stem = place.path.removesuffix(subject)
    return details["ctx"]["problem"] + written.name_origins([place.path, *(stem + other for other in others)])


def _explain_missing(place: Place) -> str:
    inner = subsections(place.field)
    if not inner:
        purpose = place.field.description.rstrip(".")
        return f"required; set it to {with_article(describe_field(place.field))} ({purpose})"
    required = [name for name, info in inner[0].model_fields.items() if info.is_required()]
    if place.field.discriminator:
        names = [describe_value(name) for each in inner for name in choices(each, place.field.discriminator)]
        required = [f"{place.field.discriminator} = {join_or(names)}"]
    return f"required; add a table [{place.path}] with {', '.join(required)}"


def _explain_choice(place: Place, written: Written) -> str:
    """Say which choices a discriminated union offers."""
    key, path = place.field.discriminator, f"{place.path}.{place.field.discriminator}"
    offered = [choice for each in subsections(place.field) for choice in choices(each, key)]
    offer = f"this version offers {join_and(map(describe_value, offered))}"
    given = written.find(path)
    return (
        f"required; {offer}" if given is None else f"{offer}, got {written.show(path)}{_did_you_mean(given, offered)}"
    )


def _explain_unknown(place: Place, root: type[Section], written: Written) -> str:
    """Say what a key that the schema does not know could have meant."""
    section, _, key = place.path.rpartition(".")
    what = f"unknown {'setting' if section else 'section'}{written.name_origins([place.path])}"
    near = get_close_matches(key, place.section.model_fields, n=1)
    if near:
        return f"{what}; did you mean {near[0]}?"
    owners = _choices_with(key, place.choice) if place.choice else []
    if owners:
        return f"{what}; it belongs to {place.choice.discriminator} = {join_or(owners)}, remove it"
    paths = [path for path, _ in leaf_paths(root)]
    elsewhere = [path for path in paths if path.rpartition(".")[2] == key] or (
        get_close_matches(place.path, paths, n=1, cutoff=0.8)
    )
    if elsewhere:
        return f"{what}; did you mean {elsewhere[0]}?"
    return f"{what}; known here: {', '.join(place.section.model_fields)}"


def _choices_with(key: str, choice: FieldInfo) -> list[str]:
    """Return which choices of a discriminated union have this key."""
    owners = [each for each in subsections(choice) if key in each.model_fields]
    return [describe_value(name) for each in owners for name in choices(each, choice.discriminator)]


def _explain_value(place: Place, written: Written) -> str:
    """Say what a key may hold, and what was given instead."""
    given, types = written.find(place.path), plain_types(place.field.annotation)
    line = f"must be {with_article(describe_field(place.field))}, got {written.show(place.path)}"
    if not isinstance(given, str):
        return line
    meant = parse_value(given.strip().lower())
    if not isinstance(meant, str) and type(meant) in types:
        return f"{line}; write {describe_value(meant)}, without quotes"
    if any(get_origin(each) is tuple for each in types):
        return f"{line}; write [{describe_value(given)}]"
    return line + _did_you_mean(
        given, [each for kind in types if get_origin(kind) is Literal for each in get_args(kind)]
    )


def _did_you_mean(given: Any, offered: Sequence[str]) -> str:
    near = get_close_matches(str(given).lower(), offered, n=1, cutoff=0.75)
    return f"; did you mean {describe_value(near[0])}?" if near else ""
