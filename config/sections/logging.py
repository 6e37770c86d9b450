"""[logging]: what is recorded, and where."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section, rule


class LoggingSection(Section):
    """metrics.jsonl in the run folder is always written; `backends` come on top."""

    backends: Annotated[tuple[Literal["console", "tensorboard", "wandb"], ...], Field(strict=False)] = ("console",)
    """Further places that metrics go to; "tensorboard" needs the package of that name, [wandb] sets up "wandb"."""
    log_every: PositiveInt = 10
    """Record training metrics after every so many steps [optimizer steps]."""
    report: bool = True
    """Keep report.html in the run folder: curves, samples, configuration and environment on one page."""
    weight_norms: bool = False
    """Record the norm of the weights of the embedding, of each block and of the head."""
    activation_norms: bool = False
    """Record the root mean square of what each of these puts out; not together with training.compile."""
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
