"""Ranges around the layers of a model, by hooks: the model stays the one it is.

    fine       layer 0, layer 1, ...
    verbose    layer 0, and in it attention_norm, attention, ...; whatever its parts are called

Hooks are attached only if ranges of their level are on, and do nothing while torch.compile traces them: a compiled
model has no layers left to name. Only forward passes are named; the profiler shows by itself what runs in backward.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from profiling.nvtx import Level, Range, is_recorded, nvtx_range

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


def name_layers(layers: "Iterable[nn.Module]") -> "list[RemovableHandle]":
    """Attach ranges to layers, and to their parts; returns the hooks, to be removed again."""
    handles: list[RemovableHandle] = []
    for index, layer in enumerate(layers):
        if is_recorded("fine"):
            handles += _attach(layer, f"layer {index}", "fine")
        if is_recorded("verbose"):
            for name, part in layer.named_children():
                handles += _attach(part, name, "verbose")
    return handles


def _attach(module: "nn.Module", name: str, level: Level) -> "list[RemovableHandle]":
    from torch.compiler import is_compiling

    entered: list[Range] = []  # what is open, in case recording stops between the two hooks

    def enter(*_: object) -> None:
        if not is_compiling():
            entered.append(nvtx_range(name, level))
            entered[-1].__enter__()

    def leave(*_: object) -> None:
        if not is_compiling():
            entered.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
