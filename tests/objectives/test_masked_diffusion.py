"""The diffusion loss against its definition: exact bounds, stratified noise, equal heads."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.objectives.masked_diffusion import MaskedDiffusion, forbid_token
from transformerlm.objectives.noise import CosineSchedule, LinearSchedule, sample_times

MASK = 10


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


@pytest.mark.parametrize("schedule", [LinearSchedule(1e-5), CosineSchedule(1e-5)])
@pytest.mark.parametrize("time_sampling", ["stratified", "iid"])
def test_mean_loss_is_the_exact_nelbo(make_model, make_context, schedule, time_sampling):
    model, length, rows = make_model(), 5, 8_000
    sequence = torch.tensor([3, 1, 4, 1, 5])
    exact = any_order_likelihood(model, sequence, MASK).nelbo
    objective = MaskedDiffusion(MASK, schedule, time_sampling)
    with torch.no_grad():
        estimates = [
            objective(model, {"tokens": sequence.expand(rows, length)}, make_context(seed, 0, rows))
            for seed in range(5)
        ]
    values = torch.tensor([float(e.loss_sum / e.weight) * length for e in estimates], dtype=torch.float64)
    # 5 means of 8,000 draws; the spread among them estimates their error, floored as five values estimate it roughly.
    error = max(values.std().item() / math.sqrt(5), 0.003 * exact)
    assert abs(values.mean().item() - exact) < 3 * error


def test_dividing_by_the_masked_count_would_not_be_the_bound(make_model, make_context):
    model, sequence, rows = make_model(), torch.tensor([3, 1, 4, 1, 5]), 5_000
    exact = any_order_likelihood(model, sequence, MASK).nelbo
    with torch.no_grad():
        output = MaskedDiffusion(MASK)(model, {"tokens": sequence.expand(rows, 5)}, make_context(0, 0, rows))
    wrong = 5 * float(output.loss_sum / output.metrics["masked_share"])
    assert abs(wrong - exact) > 0.3 * exact


@given(cuts=st.lists(st.integers(1, 7), max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_noise_does_not_depend_on_how_the_batch_is_cut(cuts, seed):
    objective, rows = MaskedDiffusion(MASK, random_length_probability=0.5), 8
    tokens = torch.randint(10, (rows, 6), generator=torch.Generator().manual_seed(seed))

    def noise(start, end):
        rng = torch.Generator().manual_seed(seed)
        context = type("Context", (), {"rng": rng, "first_row": start, "total_rows": rows})()
        corruption = objective.corrupt(tokens[start:end], None, context)
        return corruption.noised, corruption.weights

    edges = sorted({0, rows, *cuts})
    parts = [noise(start, end) for start, end in itertools.pairwise(edges)]
    whole = noise(0, rows)
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


@pytest.mark.parametrize("capacity", [1.0, 0.75, 0.1])
def test_gathered_head_has_the_loss_and_gradient_of_the_full_head(make_model, make_context, capacity):
    tokens = torch.randint(10, (4, 12), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(12)[None] < torch.tensor([[12], [12], [7], [9]])
    results = []
    for head in ("full", "gathered"):
        model = make_model()
        objective = MaskedDiffusion(MASK, head=head, gather_capacity=capacity)
        output = objective(model, {"tokens": tokens, "valid": valid}, make_context())
        output.loss_sum.backward()
        results.append([output.loss_sum, output.weight, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(results[0], results[1])


def test_gathered_head_computes_fewer_logits(make_model, make_context):
    model, seen = make_model(), []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:-1].numel()))
    tokens = torch.zeros((16, 12), dtype=torch.int64)
    MaskedDiffusion(MASK, head="gathered")(model, {"tokens": tokens}, make_context(total_rows=16))
    assert seen == [144]


def test_a_mask_is_never_predicted():
    p = forbid_token(torch.zeros(2, 11), MASK).softmax(-1)
    assert (p[:, MASK] == 0).all()
    assert p[:, 0].tolist() == pytest.approx([0.1, 0.1])


def test_padding_is_neither_masked_nor_counted(make_model, make_context):
    tokens = torch.full((4, 8), 3)
    valid = torch.arange(8).expand(4, 8) < 5
    objective = MaskedDiffusion(MASK)
    corruption = objective.corrupt(tokens, valid, make_context())
    assert not corruption.is_masked[:, 5:].any()
    assert objective(make_model(), {"tokens": tokens, "valid": valid}, make_context()).weight.item() == 20


def test_random_lengths_are_uniform_and_as_frequent_as_asked(make_context):
    objective = MaskedDiffusion(MASK, random_length_probability=0.5)
    tokens = torch.zeros((1, 8), dtype=torch.int64)
    lengths = [objective.corrupt(tokens, None, make_context(seed, 0, 1)).tokens.shape[1] for seed in range(1600)]
    counts = torch.bincount(torch.tensor(lengths), minlength=9)[1:]
    assert all(abs(count - 100) < 40 for count in counts[:-1].tolist())  # 1600 * 0.5 / 8 each
    assert abs(counts[-1].item() - 900) < 80


def test_documents_kept_apart_do_not_see_one_another(make_model, make_context):
    model, objective = make_model(), MaskedDiffusion(mask_id=10)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    other = torch.tensor([[1, 2, 3, 4, 8, 8, 8, 8]])
    noise = objective.corrupt(tokens, None, make_context(total_rows=1))
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2]])
    logits = [
        model(torch.where(noise.is_masked, 10, row), is_causal=False, documents=documents)[:, :4]
        for row in (tokens, other)
    ]
    torch.testing.assert_close(*logits)
    losses = [
        objective(model, batch, make_context(total_rows=1)).loss_sum
        for batch in ({"tokens": tokens}, {"tokens": tokens, "documents": documents})
    ]
    assert losses[0] != losses[1]
