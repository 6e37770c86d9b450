"""transformerlm/models/fused_loss.py."""

import pytest
import torch
import torch.nn.functional as F

from transformerlm.models import fused_loss
from transformerlm.models.fused_loss import Targets, chunk_length, fused_cross_entropy

VOCAB, PADDED, FORBIDDEN = 11, 16, 10


def make_inputs(dtype=torch.float64, positions=37):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((positions, 8), generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn((PADDED, 8), generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(FORBIDDEN, (positions,), generator=generator)
    weights = torch.rand(positions, generator=generator, dtype=dtype)
    weights[::5] = 0
    targets[::5] = FORBIDDEN  # impossible, and of no weight
    return hidden, head, Targets(targets, weights, FORBIDDEN)


def plain_loss(hidden, head, given):
    """Compute the same from all logits at once."""
    logits = (hidden @ head.T)[:, :VOCAB].index_fill(1, torch.tensor(FORBIDDEN), -torch.inf)
    nats = F.cross_entropy(logits, given.tokens, reduction="none")
    return torch.where(given.weights > 0, nats * given.weights, 0.0).sum(), nats


@pytest.mark.parametrize("chunk", [1, 5, 37, 100])
def test_loss_and_gradients_are_those_of_all_logits_at_once(monkeypatch, chunk):
    monkeypatch.setattr(fused_loss, "chunk_length", lambda *_: chunk)
    inputs, plain = make_inputs(), make_inputs()
    found = fused_cross_entropy(*inputs, VOCAB)
    loss, nats = plain_loss(*plain)
    torch.testing.assert_close(found.nats, nats)
    torch.testing.assert_close(found.loss_sum, loss)
    (3 * found.loss_sum).backward()
    (3 * loss).backward()
    torch.testing.assert_close(inputs[0].grad, plain[0].grad)
    torch.testing.assert_close(inputs[1].grad, plain[1].grad)


def test_it_agrees_with_torchs_own_where_there_is_one():
    if "linear_cross_entropy" not in dir(F):
        pytest.skip("this torch has no linear_cross_entropy")
    hidden, head, given = make_inputs()
    found = fused_cross_entropy(hidden, head, Targets(given.tokens, torch.ones(len(hidden))), PADDED)
    torch.testing.assert_close(found.loss_sum, F.linear_cross_entropy(hidden, head, given.tokens, reduction="sum"))


def test_without_gradients_only_the_loss_is_computed():
    inputs = make_inputs()
    with torch.no_grad():
        found = fused_cross_entropy(*inputs, VOCAB)
    assert not found.loss_sum.requires_grad
    torch.testing.assert_close(found.loss_sum, plain_loss(*inputs)[0].detach())


def test_under_autocast_products_are_narrow_and_the_sum_is_not():
    inputs, plain = make_inputs(torch.float32), make_inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused_cross_entropy(*inputs, VOCAB)
    found.loss_sum.backward()
    loss, _ = plain_loss(*plain)
    loss.backward()
    assert found.loss_sum.dtype == torch.float32
    assert inputs[1].grad.dtype == torch.float32
    assert found.loss_sum.item() == pytest.approx(loss.item(), rel=0.02)
    assert found.loss_sum.item() != loss.item()
    torch.testing.assert_close(inputs[0].grad, plain[0].grad, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("positions", "vocab_size", "expected"), [(2048, 4096, 1024), (100, 4096, 100), (8192, 50304, 128)]
)
def test_chunks_are_equal_and_of_bounded_size(positions, vocab_size, expected):
    assert chunk_length(positions, vocab_size) == expected


@pytest.mark.long
@pytest.mark.slow
def test_it_compiles_without_a_break():
    inputs, eager = make_inputs(torch.float32), make_inputs(torch.float32)

    def loss(*inputs):
        return fused_cross_entropy(*inputs, VOCAB).loss_sum

    compiled = torch.compile(loss, fullgraph=True)(*inputs)
    compiled.backward()
    loss(*eager).backward()
    torch.testing.assert_close(inputs[0].grad, eager[0].grad)
    torch.testing.assert_close(inputs[1].grad, eager[1].grad)
