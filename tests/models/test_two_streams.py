"""What the noised and the clean half of a block-diffusion row see."""

import pytest
import torch

from transformerlm.models.attention import AttentionPlan
from transformerlm.models.two_streams import (
    block_starts,
    predictor_indices,
    shared_mask,
    two_streams_rule,
)
from transformerlm.models.visibility import block_form, dense_form

CPU = torch.device("cpu")
DOCUMENTS = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 2, 2, 2, 2, 2, 2]])


def test_blocks_begin_anew_in_every_document():
    assert block_starts(5, 2, None, CPU).tolist() == [[0, 0, 2, 2, 4]]
    assert block_starts(8, 2, DOCUMENTS, CPU).tolist() == [[0, 0, 2, 2, 4, 5, 5, 7], [0, 0, 2, 2, 4, 4, 6, 6]]


def test_the_mask_is_the_published_picture():
    mask = shared_mask(4, 2, CPU, has_blocks=False)[0, 0].int().tolist()
    assert mask == [
        [1, 1, 0, 0, 0, 0, 0, 0],  # noised, first block: itself
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],  # noised, second block: itself, and the first one clean
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],  # clean: block-causal
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]


def test_masks_of_plain_rows_are_made_once():
    for has_blocks in (False, True):
        first, again = (shared_mask(6, 3, CPU, has_blocks=has_blocks) for _ in range(2))
        assert first is again


def test_a_mask_first_asked_for_in_inference_mode_serves_training(make_model):
    model, tokens = make_model(), torch.zeros((1, 14), dtype=torch.int64)
    with torch.inference_mode():
        model(tokens, is_causal=False, block_length=7)
    model(tokens, is_causal=False, block_length=7).sum().backward()
    assert model.embedding.weight.grad.abs().sum() > 0


def test_a_block_s_first_token_is_predicted_from_the_clean_stream():
    assert predictor_indices(block_starts(5, 2, None, CPU)).tolist() == [[0, 0, 5 + 1, 2, 5 + 3]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "documents", "padded"])
@torch.no_grad()
def test_blocks_for_flexattention_equal_the_dense_mask(make_model, kind):
    model, seq = make_model(context_length=80).float(), 70
    tokens = torch.randint(11, (2, 2 * seq), generator=torch.Generator().manual_seed(0))
    documents = DOCUMENTS.repeat_interleave(9, dim=1)[:, :seq] if kind == "documents" else None
    valid = torch.arange(seq) < torch.tensor([[seq], [33]]) if kind == "padded" else None
    plan = model.plan_two_streams(tokens, 4, valid, documents)
    rule = two_streams_rule(block_starts(seq, 4, documents, CPU), documents, valid)
    torch.testing.assert_close(plan.mask.expand(2, 1, -1, -1), dense_form(rule, 2, 2 * seq, CPU))
    dense = model.hidden_states(tokens, plan)
    blocks = AttentionPlan(plan.cos, plan.sin, False, blocks=block_form(rule, 2, 2 * seq, CPU))
    torch.testing.assert_close(model.hidden_states(tokens, blocks), dense, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["plain", "documents", "padded"])
def test_on_a_gpu_flexattention_has_the_loss_and_gradients_of_the_dense_mask(make_model, kind):
    seq, found = 150, []
    tokens = torch.randint(11, (2, 2 * seq), generator=torch.Generator().manual_seed(0)).cuda()
    extra = {}
    if kind == "documents":
        extra["documents"] = DOCUMENTS.repeat_interleave(19, dim=1)[:, :seq].cuda()
    if kind == "padded":
        extra["valid"] = (torch.arange(seq) < torch.tensor([[seq], [77]])).cuda()
    for backend in ("sdpa", "mha"):  # the second always takes the dense mask
        model = make_model(context_length=seq, d_model=64, attention_backend=backend).float().cuda()
        loss = model(tokens, is_causal=False, block_length=16, **extra).logsumexp(-1).mean()
        loss.backward()
        found.append((loss.item(), model.blocks[0].attention.qkv.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shift_logits", [False, True])
def test_a_compiled_pass_is_one_graph_with_the_same_logits(make_model, shift_logits):
    model = make_model(shift_logits=shift_logits)
    tokens = torch.randint(11, (2, 16), generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for extra in ({}, {"documents": DOCUMENTS}, {"valid": torch.arange(8) < torch.tensor([[8], [5]])}):
        expected = model(tokens, is_causal=False, block_length=2, **extra)
        torch.testing.assert_close(compiled(tokens, is_causal=False, block_length=2, **extra), expected)
