"""Keep an exponential moving average of the weights: often better than the last ones, for the price of a copy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainkit.training.optim import trained_parameters


class AveragedWeights:
    """Average the trained parameters of one model; sharded parameters have sharded averages."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the weights as they are.

        Raises ValueError if decay leaves (0, 1).
        """
        if not 0 < decay < 1:
            raise ValueError(f"the decay of averaged weights must lie between 0 and 1, got {decay}: try 0.999")
        self.decay = decay
        self.parameters = trained_parameters(model)
        self.averages: list[Tensor] = [parameter.detach().clone() for parameter in self.parameters]

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Return the average of each parameter."""
        return dict(zip(self.parameters, self.averages, strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after `step` (from 1).

        The first steps are averaged over few: a long memory of the random beginning would be worse than none.
        """
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter, share)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Compute with the averages inside the block; the weights come back as they were, to the last bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)
