"""Two losses over one set of weights."""

import pytest
import torch

from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.joint import Joint
from transformerlm.objectives.masked_diffusion import MaskedDiffusion

MASK = 10
TOKENS = torch.randint(10, (4, 9), generator=torch.Generator().manual_seed(1))
VALID = torch.arange(9)[None] < torch.tensor([[9], [9], [7], [4]])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_loss_and_its_gradient_are_the_weighted_sum(make_model, make_context, alpha):
    joint, both = make_model(), make_model()
    batch, diffusion = {"tokens": TOKENS, "valid": VALID}, MaskedDiffusion(MASK)
    output = Joint(diffusion, alpha, alpha)(joint, batch, make_context())
    masked = diffusion(both, {name: tensor[:, :-1] for name, tensor in batch.items()}, make_context())
    causal = Autoregressive()(both, batch, make_context())
    loss = alpha * masked.loss_sum + (1 - alpha) * causal.loss_sum
    output.loss_sum.backward()
    loss.backward()
    torch.testing.assert_close(output.loss_sum, loss)
    assert output.weight.item() == pytest.approx(alpha * (8 + 8 + 7 + 4) + (1 - alpha) * (8 + 8 + 6 + 3))
    assert output.metrics["diffusion_loss"] == masked.loss_sum
    assert output.metrics["autoregressive_loss"] == causal.loss_sum
    torch.testing.assert_close([p.grad for p in joint.parameters()], [p.grad for p in both.parameters()])


def test_the_share_goes_from_first_to_last_in_a_straight_line_and_is_final_in_evaluations():
    joint = Joint(MaskedDiffusion(MASK), alpha=0.8, initial_alpha=0.0, alpha_steps=4)
    assert [joint.alpha_at(step) for step in range(7)] == pytest.approx([0.8, 0.0, 0.2, 0.4, 0.6, 0.8, 0.8])
    assert Joint(MaskedDiffusion(MASK), alpha=0.3).alpha_at(1) == 0.3
