"""[checkpointing]: saving while training, and what to resume from."""

from pydantic import NonNegativeInt

from config.section import Section


class CheckpointingSection(Section):
    """What training saves, and what it resumes from."""

    every: NonNegativeInt = 500
    """Save after every so many steps, and at the end; 0: at the end only [optimizer steps]."""
    keep_last: NonNegativeInt = 2
    """Checkpoints to keep; older ones are deleted. 0 keeps all."""
    resume_from: str = ""
    """Empty: start anew. "latest": the newest checkpoint of the newest run. Or the path of a run or checkpoint."""
