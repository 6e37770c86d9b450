"""Write a trace of chosen steps into the run folder, for ui.perfetto.dev or chrome://tracing."""

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from torch import nn
from torch.profiler import profile

from profiling.layers import name_layers
from profiling.trace import traced
from trainkit.callbacks import Callback


class StepTrace(Callback):
    """Profile the steps from `first` to `last` on rank 0: every operation, the phases of a step, the model's layers.

    A run that ends earlier leaves the trace of the steps it did. Tracing makes steps slower.
    """

    def __init__(self, folder: Path, steps: tuple[int, int], layers: Iterable[nn.Module] = ()):
        """Write `trace_steps_<first>_<last>.json.gz` into `folder`; `layers` are named, if there are any."""
        self.folder, (self.first, self.last), self.layers = folder, steps, list(layers)
        self._open: ExitStack | None = None
        self._profiler: profile | None = None

    def on_step_start(self, step: int) -> None:
        """Begin with the first step of the range that this session does, and end behind its last."""
        if self._open is not None and step > self.last:
            self._finish(self.last)
        elif self._open is None and self.first <= step <= self.last:
            self._open = ExitStack()
            self._profiler = self._open.enter_context(traced("fine"))
            for handle in name_layers(self.layers):
                self._open.callback(handle.remove)

    def on_train_end(self, step: int) -> None:
        """End a trace that training did not outlive."""
        if self._open is not None:
            self._finish(min(step, self.last))

    def _finish(self, last: int) -> None:
        opened, self._open = self._open, None
        assert opened is not None
        opened.close()
        path = self.folder / f"trace_steps_{self.first}_{last}.json.gz"
        try:
            self._profiler.export_chrome_trace(str(path))
        except OSError as error:
            warnings.warn(f"no trace was written: {path}: {error.strerror or error}", stacklevel=2)
        self._profiler = None
