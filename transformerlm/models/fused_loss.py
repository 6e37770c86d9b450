"""The last matrix product and the cross-entropy in one, so that the logits are never there all at once.

    positions    |  chunk  |  chunk  |  chunk  |      each: logits -> loss, and at once its gradient -> next chunk
                      \\_ [chunk, vocabulary], the only logits in memory

The loss is a sum with given weights, so its gradient is known when the logits are: what is kept for the backward pass
is a gradient of the size of the hidden states and one of the size of the matrix, instead of logits, their softmax and
its gradient. It takes the same matrix products as the plain way (Wijmans et al. 2024, arXiv 2411.09009, go further and
keep a chunk on the chip). Newer versions of torch have F.linear_cross_entropy, which does the same for unweighted sums,
and leaves torch.compile's graph where it does.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from transformerlm.models.linear import Linear, multiply, multiply_transposed

CHUNK_LOGITS = 2**22
"""Logits in memory at once: 16 MB of float32; large enough for full speed, small beside everything else."""
MIN_CHUNK = 128
MAX_CHUNKS = 64


class Targets(NamedTuple):
    """What the positions of a pass are to predict."""

    tokens: Tensor
    """[n] int64."""
    weights: Tensor
    """[n] factors of the loss; where they are 0 the target may be anything."""
    forbidden: int | None = None
    """A token that is impossible everywhere."""


class Scores(NamedTuple):
    """What the tokens of a pass cost; a tuple, so that wrappers of the model find the tensors in it."""

    loss_sum: Tensor
    """[] nats, weighted and summed; differentiable."""
    nats: Tensor
    """[n] of each position, not weighted; not differentiable. Infinite where the target is impossible."""


def chunk_length(positions: int, vocab_size: int) -> int:
    """Return how many positions go through the head together."""
    wanted = max(MIN_CHUNK, CHUNK_LOGITS // vocab_size, math.ceil(positions / MAX_CHUNKS))
    return math.ceil(positions / math.ceil(positions / wanted))  # chunks of nearly equal length


def fused_cross_entropy(hidden: Tensor, head: Tensor, targets: Targets, vocab_size: int) -> Scores:
    """Score hidden states [n, d_model] against targets through a head [padded vocabulary, d_model].

    vocab_size: tokens behind it, which only pad the head, are impossible.
    """
    autocast = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
    dtype = autocast or hidden.dtype
    impossible = vocab_size, targets.forbidden
    loss_sum, nats = _FusedLoss.apply(hidden, head, targets.tokens, targets.weights, impossible, dtype)
    return Scores(loss_sum, nats)


class Head(Linear):
    """The projection onto the vocabulary: logits, or what targets cost."""

    def __init__(self, d_model: int, padded_vocab_size: int, vocab_size: int) -> None:
        super().__init__(d_model, padded_vocab_size)
        self.vocab_size = vocab_size

    def forward(self, hidden: Tensor, targets: Targets | None = None) -> Tensor | Scores:
        """hidden: [..., d_model] -> [..., vocab_size], or the scores of the flattened positions."""
        if targets is not None:
            return fused_cross_entropy(hidden.reshape(-1, hidden.shape[-1]), self.weight, targets, self.vocab_size)
        return super().forward(hidden)[..., : self.vocab_size]


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, targets, weights, impossible, dtype):
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        length = chunk_length(len(hidden), len(head))
        narrow = head.to(dtype)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        head_grad = torch.zeros_like(head) if wants_head else None
        nats = []
        for start in range(0, len(hidden), length):
            chunk = slice(start, start + length)
            inputs, target, weight = hidden[chunk].to(dtype), targets[chunk, None], weights[chunk, None]
            logits = _logits(inputs, narrow, *impossible)
            at_target, largest = logits.gather(1, target), logits.amax(dim=-1, keepdim=True)
            odds = logits.sub_(largest).exp_()  # written over the logits: no second array of this size
            total = odds.sum(dim=-1, keepdim=True)
            nats.append((total.log() + largest - at_target)[:, 0])
            if not (wants_hidden or wants_head):
                continue
            # d loss / d logits = weight * (softmax - one at the target)
            gradient = odds.mul_(weight / total)
            gradient.scatter_add_(1, target, -weight.to(gradient.dtype))
            gradient = gradient.to(dtype)
            if wants_hidden:
                hidden_grad[chunk] = multiply(gradient, narrow.T).to(hidden.dtype)
            if wants_head:
                head_grad += multiply_transposed(gradient, inputs)
        nats = torch.cat(nats)
        ctx.mark_non_differentiable(nats)
        ctx.save_for_backward(*(each for each in (hidden_grad, head_grad) if each is not None))
        ctx.wants = wants_hidden, wants_head
        return torch.where(weights > 0, nats * weights, 0.0).sum(), nats

    @staticmethod
    def backward(ctx, loss_grad, _):
        saved = iter(ctx.saved_tensors)
        gradients = [next(saved) * loss_grad if is_wanted else None for is_wanted in ctx.wants]
        return *gradients, None, None, None, None


def _logits(inputs: Tensor, head: Tensor, vocab_size: int, forbidden: int | None) -> Tensor:
    """Return [chunk, padded vocabulary] in float32 or wider, -inf where a token is impossible."""
    logits = multiply(inputs, head)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits[:, vocab_size:] = -math.inf
    if forbidden is not None:
        logits[:, forbidden] = -math.inf
    return logits
