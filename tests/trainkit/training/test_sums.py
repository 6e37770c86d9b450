"""Metrics are divided by what they say, however they were cut."""

import math

import torch

from trainkit.protocols import StepOutput
from trainkit.training.sums import MetricNames


def output(loss, weight, hits, bucket):
    return StepOutput(
        torch.tensor(loss),
        torch.tensor(weight),
        {"hits": torch.tensor(hits), "bucket/low": (torch.tensor(bucket[0]), torch.tensor(bucket[1]))},
    )


def test_plain_metrics_share_the_weight_and_pairs_bring_their_own_divisor():
    first, second = output(6.0, 3, 2, (4.0, 2)), output(2.0, 5, 6, (8.0, 1))
    names = MetricNames.of(first)
    sums = (names.pack(first, torch.device("cpu")) + names.pack(second, torch.device("cpu"))).tolist()
    assert sums[:2] == [8.0, 8.0]
    assert len(sums) == len(names)
    assert names.divide(sums) == {"hits": 1.0, "bucket/low": 4.0}


def test_an_empty_bucket_is_not_a_number_rather_than_a_wrong_one():
    only = output(6.0, 3, 2, (0.0, 0))
    names = MetricNames.of(only)
    assert math.isnan(names.divide(names.pack(only, torch.device("cpu")).tolist())["bucket/low"])


def test_counts_beyond_float32_stay_exact():
    large = StepOutput(torch.tensor(1.0), torch.tensor(2**24 + 1), {})
    names = MetricNames.of(large)
    assert (2 * names.pack(large, torch.device("cpu")))[1] == 2**25 + 2
