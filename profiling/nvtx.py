"""Name stretches of code for a profiler, at no cost unless someone is looking.

    with nvtx_range("forward"):
        ...

TRANSFORMERLM_NVTX=1 sends ranges to Nsight Systems; it is read once, when this module is imported.
TRANSFORMERLM_NVTX_LEVEL says how fine:
    coarse (default)  the phases of a step: fetch (waiting for data), forward, backward, clip, optimizer, save, evaluate
    fine              the layers of the model
    verbose           the parts of layers
Switched off, above the level, without a GPU or without the nvtx package, every range is one shared context that does
nothing. `recorded_by` sends ranges elsewhere for a while, whatever the environment says.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Level = Literal["coarse", "fine", "verbose"]

LEVELS: tuple[Level, ...] = ("coarse", "fine", "verbose")
DOMAIN = "transformerlm"
_NOTHING = nullcontext()


class Recorder(Protocol):
    """Whoever is told of ranges."""

    def push(self, name: str) -> None:
        """Begin a range inside those that are open."""
        ...

    def pop(self) -> None:
        """End the range begun last."""
        ...


class NvtxRecorder:
    """Pass ranges on to the nvtx package."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._attributes: dict[str, Any] = {}

    def push(self, name: str) -> None:
        """Begin a range."""
        if name not in self._attributes:  # a name is registered once
            self._attributes[name] = self._domain.get_event_attributes(message=name)
        self._domain.push_range(self._attributes[name])

    def pop(self) -> None:
        """End it."""
        self._domain.pop_range()


class Range:
    """A named range. It holds no state of its own, so that one object serves every entry, nested ones too."""

    __slots__ = ("_name", "_recorder")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __enter__(self) -> None:
        self._recorder.push(self._name)

    def __exit__(self, *_: object) -> None:
        self._recorder.pop()


@dataclass(slots=True)
class _Listening:
    """Who is told, and of what."""

    levels: frozenset[Level]
    recorder: Recorder | None = None
    """None with levels: the nvtx package is looked for when the first range is entered."""


def chosen_levels(switch: str | None, finest: str | None) -> frozenset[Level]:
    """Return the levels to record, given the values of TRANSFORMERLM_NVTX and TRANSFORMERLM_NVTX_LEVEL.

    Raises ValueError for an unknown level.
    """
    return frozenset() if switch in (None, "", "0") else levels_until(finest or "coarse")


def levels_until(finest: str) -> frozenset[Level]:
    """Return a level and all coarser ones.

    Raises ValueError for an unknown level.
    """
    if finest not in LEVELS:
        raise ValueError(f"TRANSFORMERLM_NVTX_LEVEL must be coarse, fine or verbose, got {finest!r}")
    return frozenset(LEVELS[: LEVELS.index(finest) + 1])


_listening = _Listening(chosen_levels(os.environ.get("TRANSFORMERLM_NVTX"), os.environ.get("TRANSFORMERLM_NVTX_LEVEL")))


def nvtx_range(name: str, level: Level = "coarse") -> AbstractContextManager[None]:
    """Return a context that shows as `name` in a profile, if ranges of this level are on."""
    if level not in _listening.levels:
        return _NOTHING
    recorder = _find_recorder()
    return _NOTHING if recorder is None else Range(recorder, name)


def is_recorded(level: Level) -> bool:
    """Return whether ranges of this level are on."""
    return level in _listening.levels and _find_recorder() is not None


@contextmanager
def recorded_by(recorder: Recorder, finest: Level = "coarse") -> Iterator[None]:
    """Send ranges to `recorder` inside the block, and to nobody else."""
    before = (_listening.levels, _listening.recorder)
    _listening.levels, _listening.recorder = levels_until(finest), recorder
    try:
        yield
    finally:
        _listening.levels, _listening.recorder = before


def _find_recorder() -> Recorder | None:
    if _listening.recorder is None:
        domain = _open_domain()
        if domain is None:  # nobody will ever listen: do not look again
            _listening.levels = frozenset()
        else:
            _listening.recorder = NvtxRecorder(domain)
    return _listening.recorder


def _open_domain() -> Any:
    """Return the nvtx domain of this package, None without a GPU or the nvtx package."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        import nvtx
    except ImportError:
        return None
    return nvtx.get_domain(DOMAIN)
