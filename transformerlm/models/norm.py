"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.models import few_rows


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm in the type of its input.

    Under autocast queries and keys are bfloat16 and the weight float32: torch would then warn and leave its fused
    kernel for a slower one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., features] -> the same shape and type."""
        if few_rows.can_take(x) and self._has_kernel(x) and not torch.compiler.is_compiling():
            return few_rows.normalize(x, self.weight, self.eps)
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)

    def _has_kernel(self, x: Tensor) -> bool:
        return self.weight.dtype == x.dtype and self.weight.shape == x.shape[-1:] and self.eps is not None
