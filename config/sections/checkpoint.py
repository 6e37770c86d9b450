"""[checkpoint]: which saved model to use."""

from config.section import NonEmptyText, Section


class CheckpointSection(Section):
    """The trained model to use; its shape, tokenizer and objective are stored with it."""

    path: NonEmptyText = "runs/latest"
    """A run folder (its newest checkpoint is taken) or one checkpoint folder."""
