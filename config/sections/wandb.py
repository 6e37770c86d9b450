"""[wandb]: Weights & Biases."""

from typing import Literal

from config.section import NonEmptyText, Section


class WandbSection(Section):
    """Weights & Biases; used when logging.backends contains "wandb"."""

    entity: str = ""
    """User or team that owns the project; empty for your default one."""
    project: NonEmptyText = "transformerlm"
    """Project in which the run appears."""
    mode: Literal["online", "offline", "disabled"] = "online"
    """`offline` records locally, to be synchronised later."""
