"""[wandb]: Weights & Biases."""

from typing import Literal

from pydantic import PositiveFloat

from config.section import NonEmptyText, Section


class WandbSection(Section):
    """Weights & Biases; used when logging.backends contains "wandb"."""

    entity: str = ""
    """User or team that owns the project; empty for your default one."""
    project: NonEmptyText = "transformerlm"
    """Project in which the run appears."""
    mode: Literal["online", "offline", "disabled"] = "online"
    """`offline` records locally, to be synchronised later. The environment variable WANDB_MODE overrules this key."""
    log_checkpoints: bool = False
    """Upload every checkpoint as a version of an artifact."""
    finish_timeout_s: PositiveFloat = 60.0
    """How long the end of training waits for uploads; the rest stays on disk, for `wandb sync` [seconds]."""
