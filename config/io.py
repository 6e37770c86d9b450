"""Read a configuration from TOML, with `extends` and --set, and write it back.

    load_config("config/resources/train.toml", TrainConfig, ["training.max_steps=100"])

A file may begin with `extends = "base.toml"`, a path relative to itself: it then needs only what differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomli
from pydantic import ValidationError

from config.checks import check_files
from config.errors import ConfigProblems, Written, explain
from config.overrides import ORIGIN, OverrideError, merge, read_overrides
from config.section import Section

# tomli's words for the two commonest slips
HINTS = {"Invalid value": "; text needs quotes", "Illegal character '\\n'": "; close the quotes"}

Config = TypeVar("Config", bound=Section)


class ConfigFileError(ValueError):
    """A configuration file that cannot be read as TOML, or a base that cannot be found."""


@dataclass(frozen=True, slots=True)
class ConfigSource(Generic[Config]):
    """What the files and --set say together, before it is validated."""

    root: type[Config]
    written: Written

    def validate(self) -> Config:
        """Return the configuration. Raises pydantic.ValidationError with every problem."""
        return self.root.model_validate(self.written.table)


def load_config(path: str | Path, root: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that a file, its bases and the overrides describe.

    Raises ConfigFileError, OverrideError, or pydantic.ValidationError.
    """
    return read_config(path, root, overrides).validate()


def load_for_command(
    path: str | Path, root: type[Config], overrides: Sequence[str] = (), *, with_files: bool = True
) -> Config:
    """Return a configuration that is ready to run: valid, and (`with_files`) every file it names is there.

    Raises ConfigProblems, which holds all problems as lines for the user.
    """
    try:
        source = read_config(path, root, overrides)
        config = source.validate()
    except (ConfigFileError, OverrideError) as error:
        raise ConfigProblems([str(error)]) from error
    except ValidationError as error:
        raise ConfigProblems(explain(error, source.root, source.written)) from error
    problems = check_files(config) if with_files else []
    if problems:
        raise ConfigProblems(problems)
    return config


def read_config(path: str | Path, root: type[Config], overrides: Sequence[str] = ()) -> ConfigSource[Config]:
    """Read a file, its bases and the overrides. Raises ConfigFileError or OverrideError."""
    layers = [*_read_chain(Path(path)), (ORIGIN, read_overrides(overrides, root))]
    table: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        table = merge(table, layer, root)
        origins |= dict.fromkeys(_leaves(layer), origin)
    main = str(path)
    elsewhere = {leaf: origin for leaf, origin in origins.items() if origin != main}
    return ConfigSource(root, Written(table, elsewhere))


def dump_toml(config: Section) -> str:
    """Return the configuration as TOML which, loaded again, gives an equal one."""
    import tomli_w  # only --print-config and a new run folder need it

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return the table that TOML text writes. Raises ConfigFileError with line and column; `name` names the text."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if error.lineno <= len(text.splitlines()) else ""
        hint = HINTS.get(error.msg, "")
        shown = f"\n    {line}\n    {' ' * (error.colno - 1)}^" if line.strip() else ""
        raise ConfigFileError(
            f"{name}, line {error.lineno}, column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}{hint}{shown}"
        ) from error


def _read_chain(path: Path, extended_by: tuple[Path, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and table of a file and all its bases, the base of all first."""
    if path.resolve() in [each.resolve() for each in extended_by]:
        circle = " -> ".join(str(each) for each in (*extended_by, path))
        raise ConfigFileError(f"extends goes in a circle: {circle}; remove one of them")
    table = parse_toml(_read_text(path, extended_by), str(path))
    base = table.pop("extends", None)
    if base is not None:
        if not isinstance(base, str) or not base:
            raise ConfigFileError(f'{path}: extends must be the path of a file, such as "train.toml", got {base!r}')
        yield from _read_chain(path.parent / base, (*extended_by, path))
    yield str(path), table


def _read_text(path: Path, extended_by: tuple[Path, ...]) -> str:
    context = f" (extended by {extended_by[-1]})" if extended_by else ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigFileError(f"{path}: no such file{context}{_suggest(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{path}: not UTF-8 text (byte {error.start}){context}; save it as UTF-8") from error
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigFileError(f"{path}: {reason}{context}; give the path of a TOML file that you may read") from error


def _suggest(path: Path) -> str:
    """Return what else a missing file could have meant."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} below {Path.cwd()}"
    names = sorted(each.name for each in path.parent.glob("*.toml"))
    near = get_close_matches(path.name, names, n=1)
    if near:
        return f"; did you mean {path.parent / near[0]}?"
    return f"; this folder has {', '.join(names)}" if names else f"; {path.parent} has no TOML files"


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key
