"""LLaDA's sampler as its paper describes it (Nie et al. 2025, arXiv 2502.09992, algorithm 5), written here from that.

It is what the product's sampler is measured against and, at temperature 0, must equal: the whole row and the whole
vocabulary at every step, Gumbel noise on every logit, a loop over the rows to pick the most confident positions.
"""

import torch
from torch import Tensor

from transformerlm.models.transformer import TransformerLM


def spread_quota(count: int, steps: int) -> list[int]:
    """Divide `count` commitments over steps, the first ones taking the remainder."""
    return [count // steps + (step < count % steps) for step in range(steps)]


def noisy_argmax(logits: Tensor, temperature: float) -> Tensor:
    """Draw from softmax(logits / temperature) by exponential noise in float64: [..., vocab_size] -> [...]."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    exponents = logits.double().exp()
    noise = (-torch.rand_like(exponents).log()) ** temperature
    return (exponents / noise).argmax(dim=-1)


@torch.no_grad()
def llada_generate(
    model: TransformerLM,
    prompts: Tensor,
    total_length: int,
    block_length: int,
    steps: int,
    temperature: float,
    mask: int,
) -> Tensor:
    """Fill rows behind prompts of equal length, low-confidence remasking: [batch, prompt] -> [batch, total_length].

    block_length divides the rest, and the number of blocks divides steps.
    """
    batch, given = prompts.shape
    row = torch.full((batch, total_length), mask, dtype=torch.int64, device=prompts.device)
    row[:, :given] = prompts
    num_blocks = (total_length - given) // block_length
    for block in range(num_blocks):
        end = given + (block + 1) * block_length
        for quota in spread_quota(block_length, steps // num_blocks):
            is_masked = row == mask
            logits = model(row, is_causal=False)
            logits[..., mask] = -torch.inf
            guess = noisy_argmax(logits, temperature)
            sureness = logits.double().softmax(dim=-1).gather(-1, guess[..., None]).squeeze(-1)
            sureness[:, end:] = -torch.inf
            sureness = torch.where(is_masked, sureness, -torch.inf)
            for index in range(batch):
                best = sureness[index].topk(quota).indices
                row[index, best] = guess[index, best]
    return row
