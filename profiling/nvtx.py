"""Name stretches of code for Nsight Systems, at no cost unless someone is looking.

    with nvtx_range("forward"):
        ...

TRANSFORMERLM_NVTX=1 switches ranges on; it is read once, when this module is imported.
TRANSFORMERLM_NVTX_LEVEL says how fine:
    coarse (default)  the phases of a step
    fine              the layers of the model
    verbose           parts of layers
Switched off, above the level, or without the nvtx package, every range is one shared context that does nothing.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

Level = Literal["coarse", "fine", "verbose"]

LEVELS: tuple[Level, ...] = ("coarse", "fine", "verbose")
DOMAIN = "transformerlm"
_NOTHING = nullcontext()


def chosen_levels(switch: str | None, finest: str | None) -> frozenset[Level]:
    """Return the levels to record, given the values of TRANSFORMERLM_NVTX and TRANSFORMERLM_NVTX_LEVEL.

    Raises ValueError for an unknown level.
    """
    if switch in (None, "", "0"):
        return frozenset()
    finest = finest or "coarse"
    if finest not in LEVELS:
        raise ValueError(f"TRANSFORMERLM_NVTX_LEVEL must be coarse, fine or verbose, got {finest!r}")
    return frozenset(LEVELS[: LEVELS.index(finest) + 1])


def _open_domain() -> Any:
    """Return the nvtx domain of this package, None without the nvtx package."""
    try:
        import nvtx
    except ImportError:
        return None
    return nvtx.get_domain(DOMAIN)


_LEVELS = chosen_levels(os.environ.get("TRANSFORMERLM_NVTX"), os.environ.get("TRANSFORMERLM_NVTX_LEVEL"))
_DOMAIN = _open_domain() if _LEVELS else None


class Range:
    """A named range. It holds no state of its own, so that one object serves every entry, nested ones too."""

    __slots__ = ("_attributes", "_domain")

    def __init__(self, domain: Any, name: str) -> None:
        self._domain, self._attributes = domain, domain.get_event_attributes(message=name)

    def __enter__(self) -> None:
        self._domain.push_range(self._attributes)

    def __exit__(self, *_: object) -> None:
        self._domain.pop_range()


def nvtx_range(name: str, level: Level = "coarse") -> AbstractContextManager[None]:
    """Return a context that shows as `name` in a profile, if ranges of this level are on."""
    if level not in _LEVELS or _DOMAIN is None:
        return _NOTHING
    return _named_range(name)


@cache
def _named_range(name: str) -> Range:
    return Range(_DOMAIN, name)
