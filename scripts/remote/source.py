"""The local checkout as one commit: uncommitted work included, ignored files and secrets never."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from arguments import UsageError
from hosts import CHECKOUT

BRANCH = "transformerlm-snapshot"
_AUTHOR = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    # Always the same, so that the same files make the same commit, and sending it again sends nothing.
    for field, value in (("NAME", "snapshot"), ("EMAIL", "snapshot@localhost"), ("DATE", "1970-01-01T00:00:00Z"))
}


def make_snapshot() -> str:
    """Return a commit of the working tree as it is, made without touching index, branches or files.

    It has no parents: the host gets the files of today and nothing of the past, which is quick and tells nothing else.
    """
    if _git("rev-parse", "--is-inside-work-tree", check=False) != "true":
        raise UsageError(f"{CHECKOUT} is no git checkout, so it cannot be sent; clone it with git, or set REPO_URL")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        head = _git("rev-parse", "--quiet", "--verify", "HEAD", check=False)
        if head:
            _git("read-tree", "HEAD", environment=index)
        _git("add", "--all", environment=index)
        # Ignored already; a rule lost from .gitignore, or a file added by force, must not give a key away.
        _git("rm", "-rq", "--cached", "--ignore-unmatch", "--", ":(glob)**/*.env", environment=index)
        tree = _git("write-tree", environment=index)
    is_clean = bool(head) and tree == _git("rev-parse", "HEAD^{tree}")
    name = _git("rev-parse", "--short", "HEAD") if head else "no commit yet"
    message = f"{name}{'' if is_clean else ' with uncommitted changes'}"
    return _git("commit-tree", tree, "-m", message, environment=_AUTHOR)


def tree_of(commit: str) -> str:
    """Return the id of a commit's files."""
    return _git("rev-parse", f"{commit}^{{tree}}")


def _git(*words: str, environment: dict[str, str] | None = None, check: bool = True) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words],
            env={**inherited, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=None if check else subprocess.DEVNULL,
            text=True,
        )
    except FileNotFoundError:
        raise UsageError("git is needed here; install it") from None
    if check and done.returncode:
        raise UsageError(f"git {words[0]} failed in {CHECKOUT} (above)")
    return done.stdout.strip()
