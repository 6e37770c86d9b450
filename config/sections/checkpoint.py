"""[checkpoint]: which saved model to use."""

from typing import Literal

from config.section import NonEmptyText, Section


class CheckpointSection(Section):
    """The trained model to use; its shape, tokenizer and objective are stored with it."""

    path: NonEmptyText = "runs/latest"
    """A run folder (its newest checkpoint is taken) or one checkpoint folder."""
    weights: Literal["auto", "trained", "averaged"] = "auto"
    """`trained`: the weights of the last step. `averaged`: their moving average (optimizer.ema_decay). `auto`: the
    average where the run kept one."""
