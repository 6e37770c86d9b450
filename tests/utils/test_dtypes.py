"""Types by name, and weights cast without touching tables."""

import pytest
import torch

from transformerlm.utils.dtypes import cast_weights, dtype_from_name


def test_names_are_torch_types():
    assert dtype_from_name("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match="unknown dtype 'int4'; choose one of float64"):
        dtype_from_name("int4")


def test_casting_changes_weights_and_keeps_rotary_tables(make_model):
    model = make_model().float()
    expected = model(torch.tensor([[1, 2, 3]]), is_causal=True)
    cast_weights(model, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.rope.cos.dtype == torch.float32
    error = (model(torch.tensor([[1, 2, 3]]), is_causal=True).float() - expected).abs().max()
    assert 0 < error < 0.05 * expected.abs().max()
    cast_weights(model, "auto")
    assert model.head.weight.dtype == torch.float32
