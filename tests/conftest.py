"""Fixtures shared by every room."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Tests run side by side, one worker per core: more threads in each would only stand in one another's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))  # for file_server

import pytest
import torch

from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM

TINY = {
    "vocab_size": 11,
    "context_length": 16,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "d_ff": 48,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count what is long or remote as slow, before -m is looked at; skip what needs a GPU where there is none."""
    for item in items:
        if item.get_closest_marker("long") or item.get_closest_marker("remote"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@dataclass
class Context:
    """A step context without trainkit."""

    rng: torch.Generator
    first_row: int
    total_rows: int
    step: int = 0


@pytest.fixture
def make_model() -> Callable[..., TransformerLM]:
    """Build a tiny float64 model whose weights are large enough to matter; keywords change its shape."""

    def make(seed: int = 0, weight_scale: float = 8.0, **changes: object) -> TransformerLM:
        torch.manual_seed(seed)
        model = TransformerLM(ModelShape(**{**TINY, **changes})).double()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.mul_(weight_scale)
        return model.eval()

    return make


@pytest.fixture
def make_context() -> Callable[..., Context]:
    """Build the context of a micro-batch: its noise seed, first row and the rows of the global batch."""

    def make(seed: int = 0, first_row: int = 0, total_rows: int = 4, step: int = 0) -> Context:
        return Context(torch.Generator().manual_seed(seed), first_row, total_rows, step)

    return make
