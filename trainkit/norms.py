"""Watch the size of weights and activations, part by part, through hooks: the model is not touched."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainkit.callbacks import Callback


class NormRecorder(Callback):
    """Report the norm of each part's weights and the root mean square of what it puts out, for logged steps.

    weight_norm/<part>      L2 norm of all parameters of the part
    activation_rms/<part>   over all elements of its output, in the first forward pass of the step
    """

    runs_on_every_rank = True  # a sharded model's parameters are gathered from all of them

    def __init__(
        self, parts: Mapping[str, nn.Module], log_every: int, has_weights: bool = True, has_activations: bool = True
    ):
        """Watch `parts` in every `log_every`-th step; parts put out a tensor, or a tuple that begins with one."""
        self.parts = parts
        self.log_every = log_every
        self.has_weights = has_weights
        self.has_activations = has_activations
        self._squares: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def on_step_start(self, step: int) -> None:
        """Listen, if the step will be logged."""
        if self.has_activations and step % self.log_every == 0:
            self._squares.clear()
            self._hooks = [part.register_forward_hook(self._keep(name)) for name, part in self.parts.items()]

    def on_gradients_ready(self, step: int, grad_norm: Tensor) -> None:
        """Stop listening."""
        self._stop_listening()

    def report_metrics(self, step: int) -> Mapping[str, float]:
        """Return what was seen of the step, and the weights after it."""
        found = {f"activation_rms/{name}": value.sqrt().item() for name, value in self._squares.items()}
        self._squares.clear()
        if self.has_weights:
            found |= {f"weight_norm/{name}": _norm(part) for name, part in self.parts.items()}
        return found

    def on_train_end(self, step: int) -> None:
        """Leave the model without hooks."""
        self._stop_listening()

    def _keep(self, name: str):
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
            if name not in self._squares:
                values = output[0] if isinstance(output, tuple) else output
                if values.ndim:  # a part that puts out a loss has no activations
                    self._squares[name] = values.detach().float().square().mean()

        return hook

    def _stop_listening(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


@torch.no_grad()
def _norm(part: nn.Module) -> float:
    parameters = list(part.parameters())
    norm = nn.utils.get_total_norm(parameters)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
