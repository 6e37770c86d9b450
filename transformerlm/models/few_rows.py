"""What generation on a CPU does to the few rows of a pass: compiled kernels, seen from torch.

MKL reads a matrix on one core for a single row, and on badly shared ones for two to thirty; the kernel reads it at the
memory's speed. And what takes torch ten calls of some microseconds each, the heads' norms and rotations, takes it one.
But importing numba takes half a second, loading the kernels as long again, and compiling them some seconds more, once
on a machine. So they are there only after `load`, or when `expect` has heard of enough work to come.
"""

import os
import sys
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

MAX_ROWS = 32
"""With more, oneDNN is as fast (benchmarking/matrix_products.py)."""
WORTH_LOADING = 2**33
"""Multiplications: 53 tokens of 163 M parameters, two seconds without kernels, or 6,200 of 1.4 M, four seconds."""


class _Local(threading.local):
    """What numba keeps for each thread of Python."""

    threads = 0


_lock, _local = threading.Lock(), _Local()
_expected = 0
_numba = _kernels = None
_is_given_up = False
_NO_WEIGHT = np.empty(0, np.float32)


def expect(multiplications: int) -> None:
    """Say how much there will be to do, so that the kernels are loaded if that is worth it."""
    global _expected
    _expected += multiplications
    if _expected >= WORTH_LOADING:
        load()


def load() -> bool:
    """Load the kernels, or compile them; False where that cannot be done, which is said once."""
    global _numba, _kernels, _is_given_up
    with _lock:
        if _kernels is None and not _is_given_up:
            try:
                import numba

                from transformerlm.models.kernels import few_rows as kernels
                from transformerlm.utils.jit import prepare

                prepare("few rows", kernels.warm_up)
                _numba, _kernels = numba, kernels
            except Exception as error:  # whatever it is, torch can do without
                _is_given_up = True
                print(f"generation goes without its kernels: {error}", file=sys.stderr)
    return _kernels is not None


def _give_up_after_fork() -> None:
    """Leave a forked process to torch: GNU's OpenMP, under the kernels, ends a child that uses it."""
    global _kernels, _is_given_up, _lock
    _kernels, _is_given_up, _lock = None, True, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_give_up_after_fork)


def is_loaded() -> bool:
    """Tell whether the kernels are there."""
    return _kernels is not None


def can_take(x: Tensor) -> bool:
    """Tell whether the functions below can and should be called for x: [..., features]."""
    is_float32 = _kernels is not None and x.is_cpu and x.dtype == torch.float32
    is_small = is_float32 and x.numel() <= MAX_ROWS * x.shape[-1]
    return is_small and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """Return x times the transposed weight; not differentiable.

    x: [rows, in], weight: [out, in], both float32 on the CPU.  Returns [rows, out].
    """
    assert x.shape[1] == weight.shape[1], f"{x.shape[1]} features do not fit a matrix with {weight.shape[1]} columns"
    product = x.new_zeros(x.shape[0], weight.shape[0])
    _share_out(_kernels.multiply, _array(x), _array(weight), product.numpy())
    return product


def normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return RMSNorm of x: [..., features] float32 on the CPU; not differentiable."""
    assert x.shape[-1:] == weight.shape, f"{x.shape[-1]} features do not fit {len(weight)} weights"
    normalized = torch.empty_like(x, memory_format=torch.contiguous_format)
    features = x.shape[-1]
    _kernels.normalize(_array(x).reshape(-1, features), _array(weight), eps, normalized.view(-1, features).numpy())
    return normalized


def rotate_heads(
    heads: Tensor,
    num_kv_heads: int,
    rotations: tuple[Tensor, Tensor],
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
) -> None:
    """Normalize queries and keys, if there are norms for them, and rotate them, all in place.

    heads: [batch, seq, heads, head_dim] float32 on the CPU, contiguous: queries, then num_kv_heads keys and as many
        values, which stay as they are.
    rotations: as RotaryEmbedding.tables returns them.
    norms: RMSNorm's weights for queries and for keys, [head_dim] each.
    """
    query_weight, key_weight = (_NO_WEIGHT, _NO_WEIGHT) if norms is None else (_array(weight) for weight in norms)
    cos, sin = (_array(table).reshape(-1, heads.shape[-1]) for table in rotations)
    rows = heads.view(-1, *heads.shape[-2:]).numpy()
    _kernels.rotate_heads(rows, num_kv_heads, cos, sin, query_weight, key_weight, eps)


def can_draw(probabilities: Tensor) -> bool:
    """Tell whether `invert_distribution` can be called."""
    return _kernels is not None and probabilities.is_cpu and probabilities.dtype == torch.float32


def invert_distribution(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first token at which the summed probabilities exceed the uniform number.

    probabilities: [..., vocab_size] float32 on the CPU.  uniforms: [...] float64.  Returns [...] int64.
    """
    assert uniforms.shape == probabilities.shape[:-1], "one number for each distribution"
    tokens = torch.empty(uniforms.shape, dtype=torch.int64)
    rows = _array(probabilities).reshape(-1, probabilities.shape[-1])
    _share_out(_kernels.invert_distribution, rows, _array(uniforms).reshape(-1), tokens.view(-1).numpy())
    return tokens


@torch.library.custom_op("transformerlm::multiply_few_rows", mutates_args=(), device_types="cpu")
def multiply_in_graph(x: Tensor, weight: Tensor) -> Tensor:
    """Do what `multiply` does, from a compiled graph."""
    return multiply(x, weight)


@multiply_in_graph.register_fake
def _shape_of_product(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _share_out(kernel: Callable[..., None], *arrays: np.ndarray) -> None:
    """Run a kernel on as many threads as torch uses."""
    threads = torch.get_num_threads()
    with _lock:  # not every kind of numba's pools of threads takes two callers
        if _local.threads != threads:
            _numba.set_num_threads(min(threads, _numba.config.NUMBA_NUM_THREADS))
            _local.threads = threads
        kernel(*arrays, threads)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
