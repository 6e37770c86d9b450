"""The matrix product of every layer, and a quick way for the few rows of generation.

torch hands few rows to its BLAS, which on a CPU takes one core for a single row and shares two to thirty badly. Cut
across its outputs, the same matrix makes a batch of products, and a batch is shared among the cores:

    x [rows, in]  times  weight [chunks, out / chunks, in]  ->  [chunks, rows, out / chunks]
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNKS = 8
FEW_ROWS = 64
"""With more the cores are busy anyway."""
LARGE_WEIGHT = 2**18
"""Below this many numbers the product is over before a second core has heard of it."""


class Linear(nn.Linear):
    """torch's, without a bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in_features] -> [..., out_features]."""
        return multiply(x, self.weight)


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """Return x times the transposed weight.

    x: [..., in].  weight: [out, in].  Returns [..., out].
    """
    rows, out_features = x.numel() // x.shape[-1], len(weight)
    is_slow = x.is_cpu and rows <= FEW_ROWS and weight.numel() >= LARGE_WEIGHT
    if not is_slow or out_features % CHUNKS or torch.is_grad_enabled():
        return F.linear(x, weight)
    pieces = torch.bmm(
        x.reshape(rows, x.shape[-1]).expand(CHUNKS, -1, -1),
        weight.view(CHUNKS, out_features // CHUNKS, -1).transpose(1, 2),
    )
    return pieces.transpose(0, 1).reshape(*x.shape[:-1], out_features)
