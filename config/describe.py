"""Say in words what a key may hold: for error messages and for the reference."""

import json
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from config.section import Section, subsections
from config.words import join_or

PLAIN_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text"}
LONGEST_VALUE = 80  # characters of a value repeated in a message


def describe_field(field: FieldInfo) -> str:
    """Return what a key may hold, such as "integer > 0" or "list of text"."""
    return _describe(field.annotation, field.metadata)


def plain_types(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation unites, without their constraints."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain_types(arguments[0])
    if origin in (Union, UnionType):
        return tuple(plain for each in arguments for plain in plain_types(each))
    return (annotation,)


def describe_value(value: Any) -> str:
    """Return a value as TOML writes it, cut short if it is long."""
    text = _write(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 4] + " ..."


def leaf_paths(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted path and the field of every key, for all choices of a discriminated union in turn."""
    for name, field in section.model_fields.items():
        inner = subsections(field)
        if not inner:
            yield prefix + name, field
        for each in inner:
            yield from leaf_paths(each, f"{prefix}{name}.")


def _describe(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0], [part for each in arguments[1:] for part in _constraints(each)])
    if origin in (Union, UnionType):
        return join_or(_describe(each) for each in arguments if each is not NoneType)
    if origin is Literal:
        return join_or(map(_write, arguments))
    if origin is tuple:
        length = "" if Ellipsis in arguments else f"{len(arguments)}: each "
        return f"list of {length}{_describe(arguments[0])}{_bounds(constraints)}"
    if origin is dict:
        return f"table of {_describe(arguments[1])}"
    return PLAIN_WORDS[annotation] + _bounds(constraints)


def _constraints(part: Any) -> list[Any]:
    return part.metadata if isinstance(part, FieldInfo) else [part]


def _bounds(constraints: Iterable[Any]) -> str:
    """Return " > 0 and <= 1" for the constraints attached to a type."""
    limits = []
    for each in constraints:
        match each:
            case Gt(gt=limit):
                limits.append(f"> {limit}")
            case Ge(ge=limit):
                limits.append(f">= {limit}")
            case Lt(lt=limit):
                limits.append(f"< {limit}")
            case Le(le=limit):
                limits.append(f"<= {limit}")
            case MinLen():
                return ", not empty"
    return f" {' and '.join(limits)}" if limits else ""


def _write(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_write(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_write, value)) + "]"
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
