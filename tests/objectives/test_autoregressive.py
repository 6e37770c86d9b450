"""Next-token loss against the chain rule."""

import torch

from transformerlm.likelihood.exact import autoregressive_nats
from transformerlm.objectives.autoregressive import Autoregressive


def chain_rule_nats(model, row):
    """-log p of each token given only what stands before it, one forward pass per token."""
    return [
        -model(row[None, :end], is_causal=True)[0, -1].log_softmax(-1)[row[end]].item() for end in range(1, len(row))
    ]


def test_loss_sum_is_the_chain_rule(make_model, make_context):
    model = make_model()
    tokens = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(1))
    output = Autoregressive()(model, {"tokens": tokens}, make_context())
    expected = [chain_rule_nats(model, row) for row in tokens]
    assert output.weight.item() == 24
    torch.testing.assert_close(output.loss_sum.double(), torch.tensor(expected).double().sum(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(autoregressive_nats(model, tokens), torch.tensor(expected).double())


def test_padded_rows_count_only_real_targets(make_model, make_context):
    model = make_model()
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9)[None] < torch.tensor([[9], [5]])
    output = Autoregressive()(model, {"tokens": tokens, "valid": valid}, make_context())
    expected = sum(chain_rule_nats(model, tokens[0])) + sum(chain_rule_nats(model, tokens[1, :5]))
    assert output.weight.item() == 8 + 4
    torch.testing.assert_close(output.loss_sum.item(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(autoregressive_nats(model, tokens, valid).sum().item(), expected)


def test_documents_kept_apart_are_scored_as_if_each_were_alone(make_model, make_context):
    model = make_model()
    first, second = [0, 3, 1, 4], [0, 5, 9, 2, 6]
    packed = {"tokens": torch.tensor([[*first, *second]]), "documents": torch.tensor([[1] * 4 + [2] * 5])}
    together = Autoregressive()(model, packed, make_context())
    alone = [
        Autoregressive()(model, {"tokens": torch.tensor([tokens])}, make_context())
        for tokens in ([*first, second[0]], second)  # the next document's opening token ends the first
    ]
    torch.testing.assert_close(together.loss_sum, sum(output.loss_sum for output in alone))
    assert together.weight == sum(output.weight for output in alone)
