"""How far predictions against cached keys are from exact ones: KL(cached || exact), in nats per position.

A text is denoised with the cache, as it would be; at every step the same positions are predicted without it too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from transformerlm.inference.canvas import Canvas
from transformerlm.inference.denoisers import Denoiser, Request
from transformerlm.inference.diffusion import DiffusionDecoder, DiffusionSettings
from transformerlm.inference.sampling import SamplingSettings, row_generators
from transformerlm.models.transformer import TransformerLM


class Shadowed:
    """A denoiser that is compared with an exact one at every step."""

    def __init__(self, cached: Denoiser, exact: Denoiser, mask_id: int) -> None:
        self.cached, self.exact, self.mask_id = cached, exact, mask_id
        self.cost = cached.cost
        self.nats, self.count = 0.0, 0

    def predict(self, request: Request) -> Tensor:
        """Return the cached logits; add their divergence at positions that are still masked."""
        ours, theirs = self.cached.predict(request), self.exact.predict(request)
        positions = request.window.positions.gather(1, request.asked)
        is_open = self.cached.tokens[request.window.rows[:, None], positions] == self.mask_id
        is_open &= request.window.is_inside.gather(1, request.asked)
        p, q = (self._without_mask(each).log_softmax(dim=-1) for each in (ours, theirs))
        divergence = (p.exp() * (p - q)).sum(dim=-1)
        self.nats += float(divergence[is_open].sum())
        self.count += int(is_open.sum())
        return ours

    def _without_mask(self, logits: Tensor) -> Tensor:
        kept = [token for token in range(logits.shape[-1]) if token != self.mask_id]
        return logits[..., kept].double()


@torch.inference_mode()
def measure_divergence(
    model: TransformerLM,
    canvases: Sequence[Canvas],
    settings: DiffusionSettings,
    sampling: SamplingSettings,
    seeds: Sequence[int],
) -> float:
    """Denoise the canvases with settings.cache; returns the mean KL(cached || exact) over steps and open positions."""
    decoder = DiffusionDecoder(model, canvases, settings, sampling, row_generators(seeds))
    block_length = settings.block_length if settings.is_block_causal else None
    lengths = [len(canvas.tokens) for canvas in canvases]
    exact = Denoiser(model, decoder.denoiser.tokens, lengths, block_length)
    shadowed = Shadowed(decoder.denoiser, exact, settings.mask_id)
    decoder.denoiser = shadowed
    decoder.run()
    return shadowed.nats / max(1, shadowed.count)
