"""How commands speak: lines that cannot stop a run, warnings without source code, streams that are always there."""

import os
import sys
import warnings
from typing import TextIO

from trainkit.logging.streams import silence


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a remark of a long run; a reader who went away (`... | head`) or a full disk does not end the run."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def remark(text: str) -> None:
    """Print a warning of a long run."""
    say(f"warning: {text}", sys.stderr)


def prepare_streams() -> None:
    """Open what the shell closed (`>&-`), and show warnings as one line."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, DeprecationWarning):
        print(f"warning: {message}", file=sys.stderr)
