"""The diffusion loss against its definition: exact bounds, stratified noise, equal heads."""

import math

import pytest
import torch

from transformerlm.likelihood.exact import any_order_likelihood
from transformerlm.objectives.masked_diffusion import MaskedDiffusion, forbid_token
from transformerlm.objectives.noise import LinearSchedule, Noise

MASK = 10


@pytest.mark.parametrize("draw", ["stratified", "complementary"])
def test_mean_loss_is_the_exact_nelbo(make_model, make_context, draw):
    model, length, rows = make_model(), 5, 2_000
    sequence = torch.tensor([3, 1, 4, 1, 5])
    exact = any_order_likelihood(model, sequence, MASK).nelbo
    objective = MaskedDiffusion(MASK, Noise(LinearSchedule(1e-5), draw))
    with torch.no_grad():
        estimates = [
            objective(model, {"tokens": sequence.expand(rows, length)}, make_context(seed, 0, rows))
            for seed in range(5)
        ]
    values = torch.tensor([float(e.loss_sum / e.weight) * length for e in estimates], dtype=torch.float64)
    # 5 means of 2,000 draws; the spread among them estimates their error, floored as five values estimate it roughly.
    error = max(values.std().item() / math.sqrt(5), 0.003 * exact)
    assert abs(values.mean().item() - exact) < 3 * error


def test_dividing_by_the_masked_count_would_not_be_the_bound(make_model, make_context):
    model, sequence, rows = make_model(), torch.tensor([3, 1, 4, 1, 5]), 5_000
    exact = any_order_likelihood(model, sequence, MASK).nelbo
    with torch.no_grad():
        output = MaskedDiffusion(MASK)(model, {"tokens": sequence.expand(rows, 5)}, make_context(0, 0, rows))
    wrong = 5 * float(output.loss_sum / output.metrics["masked_share"])
    assert abs(wrong - exact) > 0.3 * exact


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
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.nats.numel()))
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
    context = make_context()
    batch = {"tokens": tokens, "valid": valid}
    corruption = objective.corrupt(batch, objective.plan_step(8, context), context)
    assert not corruption.is_masked[:, 5:].any()
    assert objective(make_model(), batch, make_context()).weight.item() == 20


def test_random_lengths_are_uniform_and_as_frequent_as_asked(make_context):
    objective = MaskedDiffusion(MASK, random_length_probability=0.5)
    assert objective.draw_length(8, make_context(step=0)) == 8  # an evaluation
    lengths = [objective.draw_length(8, make_context(seed, step=1)) for seed in range(1600)]
    counts = torch.bincount(torch.tensor(lengths), minlength=9)[1:]
    assert all(abs(count - 100) < 40 for count in counts[:-1].tolist())  # 1600 * 0.5 / 8 each
    assert abs(counts[-1].item() - 900) < 80


def test_documents_kept_apart_do_not_see_one_another(make_model, make_context):
    model, objective = make_model(), MaskedDiffusion(mask_id=10)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    other = torch.tensor([[1, 2, 3, 4, 8, 8, 8, 8]])
    context = make_context(total_rows=1)
    noise = objective.corrupt({"tokens": tokens}, objective.plan_step(8, context), context)
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


def test_attention_widens_from_causal_to_bidirectional(make_model, make_context):
    model, seen = make_model(shift_logits=True), []
    objective = MaskedDiffusion(MASK, is_first_given=True, annealing_steps=4)
    tokens = torch.randint(10, (2, 9), generator=torch.Generator().manual_seed(1))

    def predict(step):
        context = make_context(step=step, total_rows=2)
        plan = objective.plan_step(9, context)
        seen.append(plan.lookahead)
        corruption = objective.corrupt({"tokens": tokens}, plan, context)
        return corruption.noised, objective.predict(model, corruption, {}, plan, None)

    noised, first = predict(1)
    # At first the weights do what autoregression does: each token from those before it.
    torch.testing.assert_close(first[:, 1:], model(noised, is_causal=True)[:, :-1])
    for step in (2, 3, 4):
        predict(step)
    noised, last = predict(5)
    torch.testing.assert_close(last, model(noised, is_causal=False))
    assert seen == [0, 2, 4, 6, None]
    assert objective.plan_step(9, make_context(step=0)).lookahead is None


def test_shifted_logits_leave_the_first_token_alone(make_model, make_context):
    tokens = torch.randint(10, (64, 5), generator=torch.Generator().manual_seed(1))
    objective = MaskedDiffusion(MASK, is_first_given=True, random_length_probability=1.0)
    for seed in range(20):
        context = make_context(seed, total_rows=64, step=1)
        output = objective(make_model(shift_logits=True), {"tokens": tokens}, context)
        length = objective.draw_length(5, make_context(seed, step=1))
        assert length >= 2
        assert output.weight.item() == 64 * (length - 1)


def test_an_evaluation_takes_every_mask_rate(make_context):
    objective = MaskedDiffusion(MASK, Noise(lowest=0.4, highest=0.6))
    assert objective.plan_step(8, make_context(step=0)).noise == Noise()
    assert objective.plan_step(8, make_context(step=7)).noise == objective.noise
