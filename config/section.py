"""The base of every section: strict, frozen, and with rules that relate several keys.

A single key is constrained by its type (`PositiveInt`, `Literal[...]`). What relates several keys is a `rule`:

    class ModelSection(Section):
        @rule("num_heads", "d_model")
        def heads_divide_width(num_heads: int, d_model: int) -> str | None: ...

A rule is given the values of the keys it names and answers what is wrong, or None. It is a plain function, it is
run only when all its keys are valid by themselves, and every broken rule is reported together with every
invalid key: a user sees all problems at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Location = tuple[int | str, ...]  # where an error stands, as pydantic reports it

Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what a torch generator takes
Fraction = Annotated[float, Field(ge=0, le=1)]  # [0, 1]
NonEmptyText = Annotated[str, Field(min_length=1)]
TextList = Annotated[tuple[str, ...], Field(strict=False)]  # a TOML array arrives as a list

BROKEN_RULE = "broken_rule"


@dataclass(frozen=True, slots=True)
class Rule:
    """Relate several keys; `paths[0]` is the key at which a broken rule is reported."""

    paths: tuple[str, ...]
    check: Callable[..., str | None]


def rule(*paths: str) -> Callable[[Callable[..., str | None]], Rule]:
    """Declare a rule over the keys at these dotted paths, whose values become its arguments in this order."""
    return lambda check: Rule(paths, check)


class Section(BaseModel):
    """A TOML table: unknown keys are refused, values are never converted, nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ignored_types=(Rule,),
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.rules = tuple(found for base in cls.__mro__ for found in vars(base).values() if isinstance(found, Rule))

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, data: Any, validate: ModelWrapValidatorHandler["Section"]) -> "Section":
        try:
            section = validate(data)
        except ValidationError as error:
            lines = error.errors(include_url=False)
            known = dict(_valid_values(cls, data, [line["loc"] for line in lines]))
            problems = [_restate(line) for line in lines]
        else:
            known, problems = dict(_flatten(section)), []
        problems += _broken_rules(cls.rules, known)
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return section


def choose_class(field: FieldInfo, table: Any) -> type[Section] | None:
    """Return the section that a field holds: of a choice, the one that `table` names; None for a plain value."""
    candidates = subsections(field)
    if isinstance(table, Section):  # built in Python
        return type(table) if type(table) in candidates else None
    if field.discriminator is None:
        return candidates[0] if candidates else None
    choice = table.get(field.discriminator) if isinstance(table, Mapping) else None
    return next((each for each in candidates if choice in choices(each, field.discriminator)), None)


def subsections(field: FieldInfo) -> tuple[type[Section], ...]:
    """Return the sections that a field may hold, several for a discriminated union."""
    members = (field.annotation, *get_args(field.annotation))
    return tuple(each for each in members if isinstance(each, type) and issubclass(each, Section))


def choices(section: type[Section], key: str) -> tuple[str, ...]:
    """Return what a `Literal` key of a section may be."""
    return get_args(section.model_fields[key].annotation)


def _broken_rules(rules: Iterable[Rule], known: Mapping[str, Any]) -> Iterator[InitErrorDetails]:
    for each in rules:
        if not all(path in known for path in each.paths):
            continue
        problem = each.check(*(known[path] for path in each.paths))
        if problem is not None:
            kind = PydanticCustomError(BROKEN_RULE, "{problem}", {"problem": problem, "paths": each.paths})
            subject = each.paths[0]
            yield InitErrorDetails(type=kind, loc=tuple(subject.split(".")), input=known[subject])


def _restate(line: ErrorDetails) -> InitErrorDetails:
    """Turn a reported error back into one that can be raised again beside others."""
    context = line.get("ctx", {})
    kind = PydanticCustomError(BROKEN_RULE, "{problem}", context) if line["type"] == BROKEN_RULE else line["type"]
    return InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=context)


def _flatten(section: Section) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every key below a section."""
    for name, value in section:
        yield name, value
        if isinstance(value, Section):
            yield from ((f"{name}.{path}", below) for path, below in _flatten(value))


def _valid_values(cls: type[Section], table: Any, faults: Iterable[Location]) -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every key that is valid although its section, as a whole, is not.

    Values are never converted (`strict`), so what was written is what a valid section would hold.
    """
    if isinstance(table, Section):
        yield from _flatten(table)
    if not isinstance(table, Mapping):
        return
    for name, field in cls.model_fields.items():
        inner_faults = [location[1:] for location in faults if location and location[0] == name]
        inner = choose_class(field, table.get(name))
        if inner is not None:
            if field.discriminator is not None:  # locations inside a choice begin with its name
                inner_faults = [location[1:] for location in inner_faults]
            below = table.get(name, {} if not field.is_required() else None)
            yield from ((f"{name}.{path}", value) for path, value in _valid_values(inner, below, inner_faults))
        elif not inner_faults:
            default = field.get_default(call_default_factory=True, validated_data=dict(table))
            yield name, table.get(name, default)
