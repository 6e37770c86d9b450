"""The loss by mask rate is the plain mean over masked tokens of rows masked that much."""

import pytest
import torch

from transformerlm.objectives.mask_rates import loss_by_mask_rate
from transformerlm.objectives.masked_diffusion import MaskedDiffusion


def test_each_row_counts_where_its_own_share_of_masks_belongs():
    is_masked = torch.zeros(3, 10, dtype=torch.bool)
    is_masked[0, :1] = True  # 0.1
    is_masked[1, :5] = True  # 0.5
    is_masked[2, :] = True  # 1.0, which belongs to the last fifth
    nats = torch.arange(30.0)
    found = loss_by_mask_rate(nats, is_masked)
    assert {name.partition("/")[2]: (float(total), int(count)) for name, (total, count) in found.items()} == {
        "0.0-0.2": (0.0, 1),
        "0.2-0.4": (0.0, 0),
        "0.4-0.6": (10.0 + 11 + 12 + 13 + 14, 5),
        "0.6-0.8": (0.0, 0),
        "0.8-1.0": (sum(range(20, 30)), 10),
    }


def test_padding_neither_counts_nor_thins_the_share():
    is_masked = torch.tensor([[True, True, False, False, False]])
    valid = torch.tensor([[True, True, False, False, False]])
    found = loss_by_mask_rate(torch.ones(5), is_masked, valid)
    assert int(found["loss_by_mask_rate/0.8-1.0"][1]) == 2


@pytest.mark.parametrize("head", ["full", "gathered"])
def test_the_buckets_of_a_batch_hold_every_masked_token_once(make_model, make_context, head):
    tokens = torch.randint(0, 10, (8, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 10  # a mask token in the data has no finite loss; where it is not masked it must not count
    objective = MaskedDiffusion(mask_id=10, head=head, gather_capacity=1.0)
    output = objective(make_model(), {"tokens": tokens}, make_context(total_rows=8))
    pairs = [value for name, value in output.metrics.items() if name.startswith("loss_by_mask_rate/")]
    assert len(pairs) == 5
    plan = objective.plan_step(16, make_context())
    masked = objective.corrupt({"tokens": tokens}, plan, make_context(total_rows=8)).is_masked
    assert sum(int(count) for _, count in pairs) == int(masked.sum())
