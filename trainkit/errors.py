"""Say what can go wrong in words a user can act on."""


class NonFiniteLoss(RuntimeError):
    """Report a NaN or infinite loss or gradient: the step, where its batch came from, the last good checkpoint."""


class CheckpointError(ValueError):
    """Report a checkpoint that cannot be loaded: the file at fault and the newest intact checkpoint."""


class CheckpointSaveError(RuntimeError):
    """Report a checkpoint that could not be written: the folder, the reason, and that earlier ones are intact."""


class RunFolderError(ValueError):
    """Report a run folder that cannot be used: it exists already, or cannot be written."""


class RunWriteError(RuntimeError):
    """Report a file of the run that could not be written while training: which, why, and what is left intact."""


class WorkerError(RuntimeError):
    """Report a worker process that ended without leaving a Python exception behind (killed, crashed)."""
