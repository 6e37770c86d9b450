"""Credentials and addresses for the host: on standard input only, kept there in files that only their owner reads."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

from arguments import UsageError
from hosts import CHECKOUT, Host

FOLDER = CHECKOUT / "env"
NEEDED = "wandb.env"
DATA_VARIABLES = ("TRANSFORMERLM_DATA_URL", "HF_ENDPOINT", "HF_TOKEN", "FETCH_ATTEMPTS", "FETCH_WAIT_S")
"""What scripts/fetch_data.sh reads: passed on from here if set."""
_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)")


def find_files() -> list[Path]:
    """Return env/*.env, wandb.env among them or none at all."""
    return sorted(FOLDER.glob("*.env"))


def send(host: Host) -> None:
    """Write every env/*.env to the host's env folder, mode 0600.

    Raises UsageError if there is none, or a line in it is no assignment.
    """
    files = find_files()
    if not files:
        raise UsageError(f"env/{NEEDED} is missing; copy env/{NEEDED}.example to it and write your key there")
    contents = {path.name: normalize(path) for path in files}
    for path in files:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            path.chmod(0o600)
            print(f"note: env/{path.name} was readable by others here; it is 0600 now", file=sys.stderr)
        host.call("put_env", path.name, contents[path.name])


def normalize(path: Path) -> str:
    """Return the assignments of a file as NAME=value lines, quotes around values removed.

    Nothing is expanded: a value is what stands there. Raises UsageError without showing any value.
    """
    try:
        content = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"env/{path.name} is not UTF-8 text; save it as such") from None
    lines = []
    for number, line in enumerate(content.splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise UsageError(f"env/{path.name}, line {number}: this is no NAME=value")
        value = match["value"].strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        lines.append(f"{match['name']}={value}\n")
    return "".join(lines)
