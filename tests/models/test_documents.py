"""Documents packed into one row are read as if each were alone."""

import pytest
import torch

from transformerlm.models.attention import AttentionPlan
from transformerlm.models.documents import documents_rule, restart_positions
from transformerlm.models.visibility import block_form, dense_form

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [5, 8, 9, 7, 9, 3, 2, 3, 8, 4]])
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]])


def test_positions_start_anew_in_each_document():
    assert restart_positions(DOCUMENTS).tolist() == [
        [0, 1, 2, 0, 1, 2, 3, 0, 0, 1],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 0],
    ]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("backend", ["sdpa", "mha"])
def test_a_packed_document_has_the_logits_it_has_alone(make_model, backend, is_causal):
    model = make_model(attention_backend=backend, qk_norm=True)
    packed = model(TOKENS, is_causal=is_causal, documents=DOCUMENTS)
    for row in range(2):
        for number in DOCUMENTS[row].unique():
            own = DOCUMENTS[row] == number
            alone = model(TOKENS[row, own][None], is_causal=is_causal)[0]
            torch.testing.assert_close(packed[row, own], alone)


def test_sight_within_a_document_may_end_anywhere(make_model):
    model = make_model()
    own = torch.arange(TOKENS.shape[1]).expand_as(TOKENS)
    causal = model(TOKENS, is_causal=True, documents=DOCUMENTS)
    torch.testing.assert_close(model(TOKENS, is_causal=False, documents=DOCUMENTS, last_visible=own), causal)
    full = model(TOKENS, is_causal=False, documents=DOCUMENTS)
    torch.testing.assert_close(model(TOKENS, is_causal=False, documents=DOCUMENTS, last_visible=own + 9), full)


@pytest.mark.parametrize("is_causal", [True, False])
def test_without_documents_the_row_reads_across(make_model, is_causal):
    model = make_model()
    packed = model(TOKENS, is_causal=is_causal, documents=DOCUMENTS)
    assert not torch.allclose(packed[:, 4], model(TOKENS, is_causal=is_causal)[:, 4])


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("seq", [10, 150])
@torch.no_grad()
def test_blocks_for_flexattention_equal_the_dense_mask(make_model, is_causal, seq):
    model = make_model(context_length=160).float()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(11, (3, seq), generator=generator)
    documents = (torch.rand((3, seq), generator=generator) < 0.1).cumsum(1)
    cos, sin = model.rope.tables(seq, restart_positions(documents))
    rule, where = documents_rule(documents, is_causal), (*documents.shape, documents.device)
    dense = model.hidden_states(tokens, AttentionPlan(cos, sin, False, dense_form(rule, *where)))
    blocks = model.hidden_states(tokens, AttentionPlan(cos, sin, False, blocks=block_form(rule, *where)))
    torch.testing.assert_close(blocks, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("is_causal", [True, False])
def test_on_a_gpu_flexattention_has_the_loss_and_gradients_of_the_dense_mask(make_model, is_causal):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(11, (3, 300), generator=generator).cuda()
    documents = (torch.rand((3, 300), generator=generator) < 0.05).cumsum(1).cuda()
    found = []
    for backend in ("sdpa", "mha"):  # the second always takes the dense mask
        model = make_model(context_length=300, d_model=64, attention_backend=backend).float().cuda()
        loss = model(tokens, is_causal=is_causal, documents=documents).logsumexp(-1).mean()
        loss.backward()
        found.append((loss.item(), model.blocks[0].attention.qkv.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-4)
