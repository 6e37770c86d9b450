"""Every way to draw masks has the mean that the bound wants, however the batch is cut."""

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.models.two_streams import block_starts
from transformerlm.objectives.masked_diffusion import forbid_token
from transformerlm.objectives.noise import CosineSchedule, LinearSchedule, MaskDraw, Noise, Spans, sample_times

MASK, CPU = 10, torch.device("cpu")
SEQUENCE = torch.tensor([3, 1, 4, 1, 5])
DRAWS = get_args(MaskDraw)


def spans_of(rows, seq, length, documents=None, valid=None):
    may_mask = torch.ones((rows, seq), dtype=torch.bool) if valid is None else valid
    return Spans(block_starts(seq, length, documents, CPU), length, may_mask)


def test_stratified_times_fill_every_interval_of_the_global_batch():
    for count in (1, 3, 8, 57):
        times = sample_times(count, torch.Generator().manual_seed(count))
        offsets = (times - times.min()) * count
        torch.testing.assert_close(offsets.sort().values, torch.arange(count).float(), atol=1e-4, rtol=0)
        assert ((times >= 0) & (times < 1)).all()


@pytest.mark.parametrize("schedule", [LinearSchedule(1e-3), CosineSchedule(1e-3)])
def test_weight_is_the_relative_slope_of_the_mask_rate(schedule):
    t = torch.linspace(0.2, 1, 50, dtype=torch.float64, requires_grad=True)
    rate = schedule.mask_rate(t)
    (slope,) = torch.autograd.grad(rate.sum(), t)
    torch.testing.assert_close(schedule.weight(t.detach()), slope / rate.detach(), rtol=0.03, atol=0)
    assert rate[-1].item() == pytest.approx(1.0)


@torch.no_grad()
@pytest.mark.parametrize(
    "noise",
    [
        *(Noise(LinearSchedule(1e-5), draw) for draw in DRAWS),
        *(Noise(CosineSchedule(1e-5), draw) for draw in ("stratified", "iid")),
    ],
    ids=lambda noise: f"{type(noise.schedule).__name__}-{noise.draw}",
)
def test_the_mean_over_masks_is_the_exact_bound(make_model, make_context, noise):
    model, length, rows = make_model(), len(SEQUENCE), 64
    exact = any_order_likelihood(model, SEQUENCE, MASK).nelbo
    masks = torch.tensor(list(itertools.product([False, True], repeat=length)))
    logits = forbid_token(model(SEQUENCE.masked_fill(masks, MASK), is_causal=False), MASK)
    nats = -logits.log_softmax(-1).gather(-1, SEQUENCE.expand_as(masks)[..., None]).squeeze(-1)
    powers = 2 ** torch.arange(length).flip(0)
    means = []
    for seed in range(400):
        weights = noise.draw_weights(spans_of(rows, length, length), make_context(seed, 0, rows))
        means.append(((weights * nats[((weights > 0).long() * powers).sum(-1)]).sum() / rows).item())
    means = torch.tensor(means, dtype=torch.float64)
    assert abs(means.mean().item() - exact) < 3 * means.std().item() / math.sqrt(len(means))


@given(size=st.integers(1, 9), blocks=st.integers(1, 5), rows=st.integers(1, 6), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_exact_counts_spread_evenly_over_all_blocks_of_the_batch(size, blocks, rows, seed):
    context = type("Context", (), {"rng": torch.Generator().manual_seed(seed), "first_row": 0, "total_rows": rows})()
    weights = Noise(draw="exact_count").draw_weights(spans_of(rows, size * blocks, size), context)
    counts = (weights > 0).view(rows * blocks, size).sum(-1)
    torch.testing.assert_close(weights.view(-1, size).amax(-1), size / counts)
    seen, total = torch.bincount(counts, minlength=size + 1), rows * blocks
    assert seen[0] == 0
    assert all(total // size - 1 <= each <= -(-total // size) + 1 for each in seen[1:].tolist())


def test_exact_counts_are_uniform_where_spans_differ_in_size(make_context):
    valid = torch.arange(8)[None] < torch.tensor([[8], [5], [2]])
    counts = []
    for seed in range(2000):
        weights = Noise(draw="exact_count").draw_weights(spans_of(3, 8, 8, valid=valid), make_context(seed, 0, 3))
        assert not weights[~valid].any()
        counts.append((weights > 0).sum(-1))
    for row, size in enumerate((8, 5, 2)):
        seen = torch.bincount(torch.stack(counts)[:, row], minlength=size + 1)[1:]
        expected = 2000 / size
        assert ((seen - expected) ** 2 / expected).sum() < 26  # chi-square, at most 7 degrees of freedom, p < 0.001


def test_complementary_copies_mask_every_token_once(make_context):
    weights = Noise(draw="complementary").draw_weights(spans_of(4, 12, 4), make_context())
    first, second = (weights > 0).chunk(2)
    assert (first ^ second).all()
    assert second.any()


def test_blocks_of_documents_are_spans_of_their_own(make_context):
    documents = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]]).expand(50, 10)
    weights = Noise(draw="exact_count").draw_weights(spans_of(50, 10, 4, documents), make_context(0, 0, 50))
    for start, end in ((0, 4), (4, 5), (5, 9), (9, 10)):
        counts = (weights[:, start:end] > 0).sum(-1)
        assert counts.min() >= 1
        torch.testing.assert_close(weights[:, start:end].amax(-1), (end - start) / counts)


def test_a_clipped_range_is_kept_to(make_context):
    spans, context = spans_of(400, 10, 10), make_context(0, 0, 400)
    counts = (Noise(draw="exact_count", lowest=0.3, highest=0.8).draw_weights(spans, context) > 0).sum(-1)
    assert sorted(set(counts.tolist())) == [3, 4, 5, 6, 7, 8]
    spans, context = spans_of(400, 1000, 1000), make_context(0, 0, 400)
    shares = (Noise(lowest=0.3, highest=0.8).draw_weights(spans, context) > 0).double().mean(-1)
    assert 0.24 < shares.min() < 0.36
    assert 0.74 < shares.max() < 0.86


@pytest.mark.parametrize("draw", DRAWS)
@given(cuts=st.lists(st.integers(1, 7), max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_masks_do_not_depend_on_how_the_batch_is_cut(draw, cuts, seed):
    def draw_rows(start, end):
        rng = torch.Generator().manual_seed(seed)
        context = type("Context", (), {"rng": rng, "first_row": start, "total_rows": 8})()
        return Noise(draw=draw).draw_weights(spans_of(end - start, 6, 3), context).view(-1, end - start, 6)

    edges = sorted({0, 8, *cuts})
    parts = [draw_rows(start, end) for start, end in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts, dim=1), draw_rows(0, 8))
