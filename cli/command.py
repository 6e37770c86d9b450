"""What every command shares: its options, its exit codes, and how it speaks of what went wrong.

0 done, 1 failed while running, 2 wrong usage or configuration, 130 and 143 interrupted and terminated, 75 training was
told to stop by SIGTERM or SIGUSR1, saved, and asks to be started again.
Nothing heavy is imported until the arguments are known to be right: --help must answer at once.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.output import prepare_streams
from trainkit.logging.streams import silence

RESOURCES = Path(__file__).parent.parent / "config" / "resources"
TRACEBACK_VARIABLE = "TRANSFORMERLM_TRACEBACK"


@dataclass(frozen=True, slots=True)
class Command:
    """A console script that runs from one configuration file."""

    name: str
    summary: str
    config_name: str
    """Name of its configuration's class in config/roots.py."""
    override: str
    """An override that is worth trying, for --help."""
    example: str
    """Shown below --help."""
    default_config: str | None = None
    """File in config/resources/ to read without --config; None requires --config."""
    computes: bool = False
    """It runs models in this process."""


def run_command(
    command: Command,
    body: Callable[[Any, argparse.Namespace], int],
    argv: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Parse the arguments, load the configuration and run `body(config, options)`; returns the exit code."""
    prepare_streams()
    listen_to_interrupts()
    parser = make_parser(command)
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(argv)
    try:
        return _run(command, body, options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader went away, as in `... | head`
        silence(sys.stdout)
        return 0
    except OSError as error:
        silence(sys.stdout)
        return report([f"{error.filename or 'output'}: {error.strerror or error}"], exit_code=1)


def listen_to_interrupts() -> None:
    """Let SIGINT raise KeyboardInterrupt where it is ignored: a script's background jobs inherit that."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def make_parser(command: Command) -> argparse.ArgumentParser:
    """Build the parser of the options that all commands have."""
    parser = argparse.ArgumentParser(
        prog=command.name,
        description=command.summary,
        epilog=command.example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = None if command.default_config is None else str(RESOURCES / command.default_config)
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=default is None,
        default=default,
        help="TOML file; see config/resources/" + (f" (default: {command.default_config})" if default else ""),
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help=f"override one key, such as --set {command.override}; may be repeated. All keys: docs/config.md",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration as TOML, and exit"
    )
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        metavar="SHELL",
        help="print a completion script for bash, zsh or tcsh, and exit",
    )
    return parser


class SetKey(argparse.Action):
    """An option that is short for --set KEY=VALUE, its value a text."""

    def __init__(self, option_strings: list[str], dest: str, key: str, **others: Any):
        super().__init__(option_strings, "overrides", **others)
        self.key = key

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, option: str | None = None):
        """Append the override; the same quotes serve JSON and TOML."""
        namespace.overrides = [*namespace.overrides, f"{self.key}={json.dumps(value, ensure_ascii=False)}"]


class _PrintCompletion(argparse.Action):
    """Import shtab only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: Any, option: str | None = None):
        import shtab

        if shell not in shtab.SUPPORTED_SHELLS:
            parser.error(f"--print-completion {shell}: choose one of {', '.join(shtab.SUPPORTED_SHELLS)}")
        print(shtab.complete(parser, shell=shell))
        parser.exit(0)


def _run(command: Command, body: Callable[[Any, argparse.Namespace], int], options: argparse.Namespace) -> int:
    if not _finds_own_config():
        return 2
    from config import roots
    from config.errors import ConfigProblems
    from config.io import dump_toml, load_for_command

    root = vars(roots)[command.config_name]
    try:
        config = load_for_command(options.config, root, options.overrides, with_files=not options.print_config)
    except ConfigProblems as problems:
        return report(problems.lines)
    if options.print_config:
        print(dump_toml(config), end="", flush=True)
        return 0
    if command.computes:
        from cli.host_memory import keep_freed_memory

        keep_freed_memory()
    try:
        return body(config, options)
    except ValueError as error:  # what a user can mend: the library's errors carry their remedy
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return report(str(error).splitlines())


def report(lines: Sequence[str], exit_code: int = 2) -> int:
    """Print problems to standard error, one per line, and return the exit code."""
    for line in lines:
        print(f"error: {line}" if line[:1].strip() else line, file=sys.stderr)
    return exit_code


def _finds_own_config() -> bool:
    """Say clearly if another installed package named config stands in front of ours."""
    import config

    origin = config.__file__
    if origin and (Path(origin).parent / "sections").is_dir():
        return True
    report([f"another package named config is in the way: {origin}; uninstall it, or start with uv run"])
    return False
