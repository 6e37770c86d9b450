"""The matrix product of every layer, by the quickest way that this machine has.

    few rows on a CPU       a kernel of our own             reads the matrix once, at the memory's speed: few_rows.py
    many, float32, AMD      oneDNN, inside torch            has AVX-512 whoever made the processor
    everything else         torch's own way

torch hands float32 products on a CPU to MKL, which keeps AVX-512 for Intel's processors: on one of AMD's it is half as
fast as oneDNN, which torch brings along for other types. All ways give the same result up to rounding.
"""

import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformerlm.models import few_rows

CPU_INFO = Path("/proc/cpuinfo")
LARGE_FOR_FEW_ROWS = 2**18
"""Multiplications below which the threads take longer to meet than they save."""
LARGE_FOR_ONEDNN = 2**20
"""Multiplications below which oneDNN takes longer to find its kernel than it saves."""


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
    rows, (out_features, in_features) = x.shape[:-1].numel(), weight.shape
    size = x.numel() * out_features
    if size < LARGE_FOR_FEW_ROWS or x.shape[-1] != in_features or not _is_float32_on_cpu(x, weight):
        return F.linear(x, weight)
    if few_rows.can_take(x):
        product = few_rows.multiply_in_graph if torch.compiler.is_compiling() else few_rows.multiply
    elif HAS_FAST_ONEDNN and size >= LARGE_FOR_ONEDNN:
        product = _OneDnnProduct.apply
    else:
        return F.linear(x, weight)
    return product(x.reshape(rows, in_features), weight).view(*x.shape[:-1], out_features)


def multiply_transposed(left: Tensor, right: Tensor) -> Tensor:
    """Return the transposed left times right, the gradient of a weight; not differentiable.

    left: [rows, m].  right: [rows, n].  Returns [m, n].
    """
    is_large = left.numel() * right.shape[1] >= LARGE_FOR_ONEDNN
    if not (HAS_FAST_ONEDNN and is_large and _is_float32_on_cpu(left, right)):
        return left.T @ right
    return multiply_transposed_by_onednn(left, right)


def multiply_transposed_by_onednn(left: Tensor, right: Tensor) -> Tensor:
    """Do what multiply_transposed does, for float32 on the CPU."""
    if left.shape[1] < right.shape[1]:  # oneDNN copies its first matrix if it is transposed: let it be the smaller one
        return multiply_by_onednn(left.T, right.T)
    return multiply_by_onednn(right.T, left.T).T


def _is_float32_on_cpu(x: Tensor, y: Tensor) -> bool:
    return x.is_cpu and x.dtype == y.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class _OneDnnProduct(torch.autograd.Function):
    """x [rows, in] times weight [out, in], transposed."""

    @staticmethod
    def forward(x, weight):
        return multiply_by_onednn(x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # to be differentiated again
            return gradient @ weight if wants_x else None, gradient.T @ x if wants_weight else None
        x_gradient = multiply_by_onednn(gradient, weight.T) if wants_x else None
        return x_gradient, multiply_transposed(gradient, x) if wants_weight else None


def multiply_by_onednn(x: Tensor, weight: Tensor) -> Tensor:
    """Return x times the transposed weight: [rows, in] and [out, in] float32 on the CPU; not differentiable."""
    if torch.compiler.is_compiling():
        return _multiply_in_graph(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@torch.library.custom_op("transformerlm::multiply_by_onednn", mutates_args=(), device_types="cpu")
def _multiply_in_graph(x: Tensor, weight: Tensor) -> Tensor:
    """Do the same from a compiled graph, which takes torch's own operator with constant weights only."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@_multiply_in_graph.register_fake
def _shape_of_product(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _has_fast_onednn() -> bool:
    has_operator = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    try:
        processor = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        processor = platform.processor()
    return has_operator and "AuthenticAMD" in processor and torch.backends.cpu.get_cpu_capability() == "AVX512"


HAS_FAST_ONEDNN = _has_fast_onednn()
