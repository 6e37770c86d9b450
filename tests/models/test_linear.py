"""Few rows take another way through the matrix than many, to the same result."""

import pytest
import torch
import torch.nn.functional as F

from transformerlm.models import linear
from transformerlm.models.linear import FEW_ROWS, Linear, multiply


@pytest.fixture
def weight(monkeypatch):
    monkeypatch.setattr(linear, "LARGE_WEIGHT", 1)
    return torch.randn(24, 10, dtype=torch.float64)


def calls_of(monkeypatch, name):
    """Count the calls of a function of torch that still does its work."""
    calls, original = [], getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda *arguments: calls.append(1) or original(*arguments))
    return calls


@pytest.mark.parametrize(
    "shape", [(0, 10), (10,), (1, 10), (1, 1, 10), (3, 10), (2, 3, 10), (FEW_ROWS, 10), (FEW_ROWS + 1, 10)]
)
def test_the_product_is_the_same_for_few_rows_and_many(weight, monkeypatch, shape):
    x, batched = torch.randn(shape, dtype=torch.float64), calls_of(monkeypatch, "bmm")
    with torch.inference_mode():
        found = multiply(x, weight)
    assert found.shape == (*shape[:-1], 24)
    torch.testing.assert_close(found, F.linear(x, weight), rtol=1e-14, atol=1e-14)
    assert len(batched) == (x.numel() // 10 <= FEW_ROWS)


def test_rows_that_do_not_lie_side_by_side_are_multiplied_too(weight):
    x = torch.randn(10, 5, dtype=torch.float64).T
    with torch.inference_mode():
        torch.testing.assert_close(multiply(x, weight), x @ weight.T, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("out_features", [23, 1])
def test_outputs_that_cannot_be_cut_evenly_go_the_plain_way(monkeypatch, out_features):
    monkeypatch.setattr(linear, "LARGE_WEIGHT", 1)
    x, weight = torch.randn(2, 10), torch.randn(out_features, 10)
    with torch.no_grad():
        assert torch.equal(multiply(x, weight), F.linear(x, weight))


def test_training_goes_the_plain_way(weight, monkeypatch):
    layer, batched = Linear(10, 24).double(), calls_of(monkeypatch, "bmm")
    x = torch.randn(2, 10, dtype=torch.float64)
    layer(x).sum().backward()
    assert batched == []
    assert torch.equal(layer.weight.grad, x.sum(dim=0).expand(24, -1))


def test_small_matrices_go_the_plain_way(monkeypatch):
    batched = calls_of(monkeypatch, "bmm")
    with torch.inference_mode():
        multiply(torch.randn(1, 64), torch.randn(2**12 - 8, 64))
        assert batched == []
        multiply(torch.randn(1, 64), torch.randn(2**12, 64))
    assert len(batched) == 1
