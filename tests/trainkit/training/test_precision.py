"""Formats follow the hardware, and say so when they cannot."""

import warnings

import pytest
import torch
from trainkit_workers import make_settings, make_trainer

from trainkit.distributed.parallel import World
from trainkit.training import precision
from trainkit.training.precision import Precision, choose_dtype

CPU = torch.device("cpu")


def test_auto_and_float32_are_float32_on_a_cpu_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_dtype("auto", CPU) == torch.float32
        assert choose_dtype("float32", CPU) == torch.float32


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_format_the_hardware_lacks_warns_and_falls_back(name, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match=f"this cpu does not compute in {name}: training in float32 instead"):
        assert choose_dtype(name, CPU) == torch.float32


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'fp8': use auto, float32"):
        choose_dtype("fp8", CPU)


def test_bfloat16_runs_under_autocast_where_the_cpu_has_it(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    with Precision("bfloat16", CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    trainer = make_trainer(World(), make_settings(precision="bfloat16"))
    trainer.fit()
    assert all(p.dtype == torch.float32 for p in trainer.parameters)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_formats_train_on_a_gpu(name):
    device = torch.device("cuda")
    holder = Precision(name, device)
    model = torch.nn.Linear(4, 4, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    before = model.weight.detach().clone()
    with holder.autocast():
        loss = model(torch.randn(8, 4, device=device)).square().sum()
    holder.backward(loss)
    if holder.is_scaled:
        holder.scaler.unscale_(optimizer)
    holder.step(optimizer)
    assert holder.is_scaled == (name == "float16")
    assert not torch.equal(model.weight, before)
