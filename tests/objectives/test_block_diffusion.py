"""Block diffusion between autoregression and masked diffusion, vectorised as if it were looped."""

import math

import pytest
import torch
import torch.nn.functional as F

from transformerlm.likelihood.exact import block_diffusion_likelihood
from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.block_diffusion import BlockDiffusion
from transformerlm.objectives.masked_diffusion import MaskedDiffusion, forbid_token
from transformerlm.objectives.noise import LinearSchedule, Noise

MASK = 10
TOKENS = torch.randint(10, (3, 9), generator=torch.Generator().manual_seed(1))
DOCUMENTS = torch.tensor([[1] * 9, [1, 1, 1, 1, 2, 2, 2, 2, 2], [1, 2, 2, 2, 2, 2, 2, 3, 3]])
VALID = torch.arange(9)[None] < torch.tensor([[9], [4], [6]])


def assert_same_training(first, second, dtype=torch.float64):
    """Two (model, output) pairs have the same loss, weight and gradients."""
    found = []
    for model, output in (first, second):
        output.loss_sum.backward()
        values = [output.loss_sum, output.weight, *(p.grad for p in model.parameters() if p.grad is not None)]
        found.append([value.detach().to(dtype) for value in values])
    torch.testing.assert_close(found[0], found[1])


def looped_loss(model, batch, block_length, corruption):
    """Denoise every block of every document by a pass of its own, behind its clean past."""
    total = torch.zeros((), dtype=torch.float64)
    documents = batch.get("documents", torch.zeros_like(batch["tokens"]))
    valid = batch.get("valid", torch.ones_like(batch["tokens"], dtype=torch.bool))
    for row in range(len(batch["tokens"])):
        for number in documents[row].unique():
            own = (documents[row] == number) & valid[row]
            clean, noised, weights = (x[row, own] for x in (batch["tokens"], corruption.noised, corruption.weights))
            for start in range(0, len(clean), block_length):
                end = min(start + block_length, len(clean))
                tokens = torch.cat((clean[:start], noised[start:end]))[None]
                ends = (torch.arange(end) // block_length * block_length + block_length - 1).clamp(max=end - 1)
                logits = forbid_token(model(tokens, is_causal=False, last_visible=ends[None])[0, start:], MASK)
                nats = F.cross_entropy(logits, clean[start:end], reduction="none")
                total = total + torch.where(weights[start:][: end - start] > 0, nats * weights[start:end], 0.0).sum()
    return total


@pytest.mark.parametrize("extra", [{}, {"documents": DOCUMENTS}, {"valid": VALID}])
@pytest.mark.parametrize("block_length", [1, 2, 4, 9])
def test_one_pass_over_two_streams_equals_a_pass_for_each_block(make_model, make_context, extra, block_length):
    batch = {"tokens": TOKENS, **extra}
    objective = BlockDiffusion(MASK, Noise(draw="exact_count"), block_length=block_length)
    vectorised, looped = make_model(), make_model()
    output = objective(vectorised, batch, make_context())
    context = make_context()
    corruption = objective.corrupt(batch, objective.plan_step(9, context), context)
    by_hand = type(output)(looped_loss(looped, batch, block_length, corruption), output.weight)
    assert_same_training((vectorised, output), (looped, by_hand))


@pytest.mark.parametrize("extra", [{}, {"documents": DOCUMENTS}, {"valid": VALID}])
def test_blocks_of_one_token_with_shifted_logits_are_autoregression(make_model, make_context, extra):
    class NeverAMask(torch.nn.Module):  # the one thing that autoregression does not know of masks
        def forward(self, tokens, targets, **rest):
            return plain(tokens, targets=targets._replace(forbidden=MASK), **rest)

    batch = {"tokens": TOKENS, **extra}
    plain, shifted = make_model(), make_model(shift_logits=True)
    output = BlockDiffusion(MASK, is_first_given=True, block_length=1)(shifted, batch, make_context())
    expected = Autoregressive()(NeverAMask(), batch, make_context())
    assert_same_training((shifted, output), (plain, expected), dtype=torch.float32)


def test_blocks_of_one_token_are_the_chain_rule_without_noise(make_model, make_context):
    model, by_hand = make_model(), make_model()
    objective = BlockDiffusion(MASK, block_length=1)
    losses = [objective(model, {"tokens": TOKENS}, make_context(seed)) for seed in range(3)]
    assert len({output.loss_sum.item() for output in losses}) == 1
    total = torch.zeros((), dtype=torch.float64)
    for row in TOKENS:
        for position in range(9):
            tokens = torch.cat((row[:position], torch.tensor([MASK])))[None]
            causal = torch.arange(position + 1)[None]
            logits = forbid_token(by_hand(tokens, is_causal=False, last_visible=causal)[0, -1], MASK)
            total = total - logits.log_softmax(-1)[row[position]]
    assert_same_training((model, losses[0]), (by_hand, type(losses[0])(total, losses[0].weight)))


@pytest.mark.parametrize("draw", ["stratified", "exact_count", "complementary"])
def test_one_block_is_masked_diffusion(make_model, make_context, draw):
    noise, blocks, whole = Noise(draw=draw), make_model(), make_model()
    found = BlockDiffusion(MASK, noise, block_length=9)(blocks, {"tokens": TOKENS}, make_context(total_rows=3))
    assert_same_training(
        (blocks, found),
        (whole, MaskedDiffusion(MASK, noise)(whole, {"tokens": TOKENS}, make_context(total_rows=3))),
    )


@torch.no_grad()
@pytest.mark.parametrize("shift_logits", [False, True])
@pytest.mark.parametrize("draw", ["stratified", "exact_count", "complementary"])
def test_mean_loss_is_the_exact_bound_and_no_lower_than_the_exact_nll(make_model, make_context, draw, shift_logits):
    model, rows = make_model(shift_logits=shift_logits), 250
    sequence, first = torch.tensor([3, 1, 4, 1, 5]), [shift_logits] + [False] * 4
    exact = block_diffusion_likelihood(model, sequence, 2, MASK, first)
    noise = Noise(LinearSchedule(1e-5), draw)
    objective = BlockDiffusion(MASK, noise, block_length=2, is_first_given=shift_logits)
    batch = {"tokens": sequence.expand(rows, 5)}
    means = [objective(model, batch, make_context(seed, 0, rows)).loss_sum.item() / rows for seed in range(16)]
    means = torch.tensor(means, dtype=torch.float64)
    assert abs(means.mean().item() - exact.nelbo) < 3 * means.std().item() / math.sqrt(16)
    assert exact.nelbo >= exact.nll


@pytest.mark.parametrize("shift_logits", [False, True])
def test_gathered_head_has_the_loss_and_gradient_of_the_full_one(make_model, make_context, shift_logits):
    results = []
    for head in ("full", "gathered"):
        model = make_model(shift_logits=shift_logits)
        objective = BlockDiffusion(MASK, head=head, block_length=3, is_first_given=shift_logits)
        results.append((model, objective(model, {"tokens": TOKENS}, make_context())))
    assert_same_training(*results)


@pytest.mark.parametrize(("head", "logits"), [("full", 16 * 12), ("gathered", 144)])
def test_the_clean_stream_needs_no_logits(make_model, make_context, head, logits):
    model, seen = make_model(), []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.nats.numel()))
    tokens = torch.zeros((16, 12), dtype=torch.int64)
    BlockDiffusion(MASK, head=head, block_length=4)(model, {"tokens": tokens}, make_context(total_rows=16))
    assert seen == [logits]


def test_block_lengths_warm_up_and_mix_and_are_final_in_evaluations(make_context):
    objective = BlockDiffusion(
        MASK, Noise(lowest=0.3, highest=0.8), block_length=8, warmup_lengths=(1, 4), warmup_steps=3, mixed_lengths=(2,)
    )
    lengths = [objective.plan_step(16, make_context(step, step=step)).block_length for step in range(1, 107)]
    assert lengths[:6] == [1, 1, 1, 4, 4, 4]
    assert set(lengths[6:]) == {2, 8}
    assert 30 < lengths.count(2) < 70
    evaluation = objective.plan_step(16, make_context(step=0))
    assert (evaluation.block_length, evaluation.noise) == (8, Noise())
    assert objective.plan_step(6, make_context(step=0)).block_length == 6  # no longer than the row
