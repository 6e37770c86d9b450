"""[checkpointing]: saving while training, and what to resume from."""

import re

from pydantic import NonNegativeInt

from config.section import Section, rule

_URL = re.compile(r"[a-z][a-z0-9+]*://[^/].*|(file|memory):///?[^/].*")


class CheckpointingSection(Section):
    """What training saves, and what it resumes from."""

    every: NonNegativeInt = 500
    """Save after every so many steps, and at the end; 0: at the end only [optimizer steps]."""
    keep_last: NonNegativeInt = 2
    """Newest checkpoints to keep; others are deleted, unless one of the next two keys keeps them. 0 keeps all."""
    keep_best: NonNegativeInt = 1
    """Checkpoints of lowest validation loss to keep. Unless 0, a new lowest loss is saved at once."""
    keep_every: NonNegativeInt = 0
    """Also keep the checkpoints of all steps that are a multiple of this; 0: none [optimizer steps]."""
    in_background: bool = True
    """Train on while a checkpoint is written; takes main memory for a copy of the weights and the optimizer's state."""
    resume_from: str = ""
    """Empty: start anew. "latest" or "best": that checkpoint of the newest run, or of logging.run_name if that is set.
    Or the path or URL of a run or checkpoint."""
    auto_resume: bool = False
    """Go on from the newest intact checkpoint of the same run, or start it: the same command line always continues.
    The same run is the one of logging.run_name, or else the newest with exactly this configuration. resume_from goes
    first, unless it is empty."""
    remote_url: str = ""
    """Upload checkpoints in the background, into <remote_url>/<run name>/: s3://bucket/folder (needs the package s3fs),
    gs://bucket/folder (gcsfs), file:///folder. auto_resume finds them there on a new machine. Empty: do not upload."""

    @rule("remote_url")
    def remote_is_a_url(remote_url: str) -> str | None:
        """Require a protocol and a place."""
        if not remote_url or _URL.fullmatch(remote_url):
            return None
        return f"{remote_url!r} is no URL; write s3://bucket/folder, gs://bucket/folder or file:///folder"
