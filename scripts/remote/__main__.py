"""The remote plane: `python3 scripts/remote RECIPE ARGUMENT...`, as the Justfile calls it.

Standard library only, Python 3.9 or newer, so that it runs on any laptop. arguments.py reads the words, hosts.py knows
ssh, recipes.py and files.py do the work, pods.py rents; the host's half is host.sh, tasks.sh and the
three scripts beside this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import files
import pods
import recipes
from arguments import Arguments, UsageError, parse_arguments
from hosts import RemoteError


class Recipe(NamedTuple):
    """What a recipe runs, the options it knows in the order of positions, and whether it takes words after `--`."""

    run: Callable[[Arguments], None]
    names: tuple[str, ...] = ()
    takes_words: bool = False


_JOB = ("config", "extra", "gpus", "nodes", "force", "master", "port")
RECIPES = {
    "bootstrap-remote": Recipe(recipes.bootstrap, ("force", "nodes")),
    "data-remote": Recipe(recipes.data, ("dest", "nodes")),
    "build-remote": Recipe(recipes.build, ("nodes",)),
    "sync-env": Recipe(recipes.sync_env, ("nodes",)),
    "train": Recipe(recipes.train, _JOB, takes_words=True),
    "resume-train": Recipe(recipes.resume_train, ("run", *_JOB[1:]), takes_words=True),
    "auto-train": Recipe(recipes.auto_train, (*_JOB, "dest"), takes_words=True),
    "infer": Recipe(recipes.infer, ("command", "args"), takes_words=True),
    "nvitop": Recipe(recipes.nvitop, takes_words=True),
    "attach-train": Recipe(recipes.attach_train),
    "logs-train": Recipe(recipes.logs_train, ("lines", "follow")),
    "status-train": Recipe(recipes.status_train, ("nodes",)),
    "wait-train": Recipe(recipes.wait_train, ("nodes", "every")),
    "kill-train": Recipe(recipes.kill_train, ("grace", "nodes")),
    "list-runs": Recipe(files.list_runs),
    "fetch": Recipe(files.fetch, ("any_file",)),
    "fetch-run": Recipe(files.fetch_run, ("run",)),
    "pod-up": Recipe(pods.pod_up, ("gpu_type", "gpus", "id", "name", "disk", "image", "region", "spot", "yes")),
    "pod-config": Recipe(pods.pod_config, ("pod", "wait")),
    "pod-cost": Recipe(pods.pod_cost),
    "pod-down": Recipe(pods.pod_down, ("pod", "yes", "force")),
    "train-then-down": Recipe(pods.train_then_down, (*_JOB, "dest", "pod", "yes", "every"), takes_words=True),
}


def main(words: list[str]) -> int:
    """Run one recipe; returns its exit code: 2 for wrong usage, 255 for a lost connection, else the host's own."""
    if not words or words[0] not in RECIPES:
        print(f"usage: python3 scripts/remote RECIPE ARGUMENT...; recipes: {', '.join(RECIPES)}", file=sys.stderr)
        return 2
    recipe = RECIPES[words[0]]
    try:
        recipe.run(parse_arguments(words[1:], recipe.names, recipe.takes_words))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RemoteError as error:
        if str(error):
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
