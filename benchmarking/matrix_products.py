"""Every way of multiplying by a matrix beside torch's own: `python -m benchmarking.matrix_products`.

    1  few rows, without gradients: the kernel of few_rows.py, and oneDNN
    2  many rows: oneDNN forward, for the gradient of the rows, and for the gradient of the matrix

transformerlm/models/linear.py chooses among them; whether it chooses well on a machine can be read here. The ways take
turns. Each product takes the next of several matrices, together 64 MB or more if one has a million numbers, so that no
large one waits in a cache.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.compare_inference import show, take_turns
from benchmarking.machine import inspect_machine
from transformerlm.models import few_rows, linear

SHAPES = ((384, 128), (4096, 128), (1376, 256), (1536, 512), (3072, 1024), (1024, 2816))
FEW, MANY = (1, 2, 4, 8, 16, 32), (64, 512, 2048)
LARGE, TOGETHER = 2**20, 2**24
MULTIPLICATIONS = 2**28
"""Of each turn, about."""

Way = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of rows [rows, in], their gradients [rows, out] and a matrix [out, in], some product."""
FORWARD: tuple[tuple[str, Way], ...] = (
    ("torch", lambda x, _, matrix: F.linear(x, matrix)),
    ("oneDNN", lambda x, _, matrix: linear.multiply_by_onednn(x, matrix)),
)
KERNEL: tuple[str, Way] = ("kernel", lambda x, _, matrix: few_rows.multiply(x, matrix))
ROWS_GRADIENT: tuple[tuple[str, Way], ...] = (
    ("torch", lambda _, gradient, matrix: gradient @ matrix),
    ("oneDNN", lambda _, gradient, matrix: linear.multiply_by_onednn(gradient, matrix.T)),
)
MATRIX_GRADIENT: tuple[tuple[str, Way], ...] = (
    ("torch", lambda x, gradient, _: gradient.T @ x),
    ("oneDNN", lambda x, gradient, _: linear.multiply_transposed_by_onednn(gradient, x)),
)


def time_ways(ways: Sequence[tuple[str, Way]], rows: int, shape: tuple[int, int], rounds: int) -> list[float]:
    """Return the microseconds that one product takes each way: medians."""
    size = shape[0] * shape[1]
    matrices = [torch.randn(shape) for _ in range(1 + TOGETHER // size if size >= LARGE else 1)]
    x, gradient = torch.randn(rows, shape[1]), torch.randn(rows, shape[0])
    repeats = max(1, MULTIPLICATIONS // (rows * size * len(matrices)))

    def run(way: Way) -> None:
        for _, matrix in product(range(repeats), matrices):
            way(x, gradient, matrix)

    timings = take_turns([(name, lambda way=way: run(way)) for name, way in ways], rounds)
    return [1e6 * timing.median / repeats / len(matrices) for timing in timings]


def compare_few_rows(rounds: int) -> None:
    """Part 1."""
    table = []
    for shape in SHAPES:
        times = [time_ways((*FORWARD, KERNEL), rows, shape, rounds) for rows in FEW]
        table.append((f"{shape[0]} x {shape[1]}", "torch, us", *(f"{torchs:.0f}" for torchs, _, _ in times)))
        table.append(("", "oneDNN, times as fast", *(f"{torchs / theirs:.2f}" for torchs, theirs, _ in times)))
        table.append(("", "kernel, times as fast", *(f"{torchs / ours:.2f}" for torchs, _, ours in times)))
    show("1  few rows, float32", ("matrix", "", *(f"{rows} row{'s'[: rows > 1]}" for rows in FEW)), table)


def compare_many_rows(rounds: int) -> None:
    """Part 2."""
    jobs = (("forward", FORWARD), ("rows' gradient", ROWS_GRADIENT), ("matrix's gradient", MATRIX_GRADIENT))
    table = []
    for shape, (job, ways) in product(SHAPES, jobs):
        cells = []
        for rows in MANY:
            slow, fast = time_ways(ways, rows, shape, rounds)
            operations = 2 * rows * shape[0] * shape[1] / 1e3
            cells.append(f"{operations / slow:.0f} -> {operations / fast:.0f}, {slow / fast:.2f}")
        table.append((f"{shape[0]} x {shape[1]}", job, *cells))
    title = "2  many rows, float32 [GFLOP/s of torch -> of oneDNN, times as fast]"
    show(title, ("matrix", "", *(f"{rows} rows" for rows in MANY)), table)


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparisons; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each way")
    options = parser.parse_args(argv)
    few_rows.load()
    print(f"{inspect_machine(torch.device('cpu')).name}; oneDNN is used: {'yes' if linear.HAS_FAST_ONEDNN else 'no'}")
    compare_few_rows(options.rounds)
    compare_many_rows(options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
