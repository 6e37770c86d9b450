"""[logging]: what is recorded, and where."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section, rule


class LoggingSection(Section):
    """metrics.jsonl in the run folder is always written; `backends` come on top."""

    backends: Annotated[tuple[Literal["console", "wandb"], ...], Field(strict=False)] = ("console",)
    """Further places that metrics go to."""
    log_every: PositiveInt = 10
    """Record training metrics after every so many steps [optimizer steps]."""
    runs_path: NonEmptyText = "runs"
    """Folder in which each run gets its own folder."""
    run_name: str = ""
    """Name of the run and of its folder, without slashes. Default: the time at which it starts."""

    @rule("run_name")
    def run_name_is_one_folder(run_name: str) -> str | None:
        """Refuse names that would put the run elsewhere."""
        if set(run_name) & set("/\\\0") or run_name in (".", "..", "latest"):
            return f'"{run_name}" cannot name a folder inside runs_path; use letters, digits, "-" and "_"'
        return None
