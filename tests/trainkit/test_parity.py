"""The gradient does not depend on how a global batch is cut over ranks and micro-batches."""

import pytest
import torch
from torch.nn import functional
from trainkit_workers import (
    GLOBAL_ROWS,
    LENGTH,
    VOCABULARY,
    WIDTH,
    global_batch,
    make_model,
    train_three_steps,
)

from trainkit.distributed.parallel import World
from trainkit.training.seeding import make_generator


def train_by_hand(steps: int = 3) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train on whole batches with nothing but torch: mean loss, clip, AdamW written out (Loshchilov and Hutter)."""
    model = make_model()
    parameters = dict(model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    norms = []
    for step in range(1, steps + 1):
        batch = global_batch(step)
        noise = torch.randn(GLOBAL_ROWS, LENGTH, WIDTH, generator=make_generator(torch.device("cpu"), 0, "step", step))
        logits = model(batch["ids"][:, :-1], 0.1 * noise)
        targets = batch["ids"][:, 1:].masked_fill(~batch["valid"], -100)
        model.zero_grad()
        functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1)).backward()
        norms.append(torch.sqrt(sum(p.grad.square().sum() for p in parameters.values())).item())
        learning_rate = {1: 0.01, 2: 0.02, 3: 0.002}[step]  # two steps of warm-up, then the end of the cosine
        with torch.no_grad():
            for name, p in parameters.items():
                gradient = p.grad * min(1.0, 0.5 / norms[-1])
                p -= learning_rate * (0.1 if name == "mix.weight" else 0.0) * p
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient.square()
                moment = (first[name] / (1 - 0.9**step)) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
                p -= learning_rate * moment
    assert max(norms) > 0.5, "the test should reach clipping"
    return {name: p.detach() for name, p in parameters.items()}, norms


@pytest.fixture(scope="module")
def by_hand() -> tuple[dict[str, torch.Tensor], list[float]]:
    return train_by_hand()


def assert_same_training(actual: tuple[dict, list], expected: tuple[dict, list]) -> None:
    (actual, actual_norms), (expected, expected_norms) = actual, expected
    assert actual_norms == pytest.approx(expected_norms, rel=1e-5)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=2e-5, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_one_process_equals_the_update_written_by_hand(by_hand, accumulation):
    assert_same_training(train_three_steps(World(), accumulation), by_hand)


def test_two_ranks_and_two_micro_batches_equal_one_process_with_the_whole_batch(by_hand, run_ranks):
    for trained in run_ranks(train_three_steps, 2, 2):
        assert_same_training(trained, by_hand)


def test_parity_holds_for_muon(run_ranks):
    expected = train_three_steps(World(), 1, False, True)
    for trained in run_ranks(train_three_steps, 2, 2, False, True):
        # Muon orthogonalises in bfloat16: gradients that differ in the last bit may round to neighbouring values.
        assert trained[1] == pytest.approx(expected[1], rel=1e-4)
        for name, tensor in expected[0].items():
            torch.testing.assert_close(trained[0][name], tensor, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_parity_of_two_ranks_holds_under_compile(by_hand, run_ranks):
    for trained in run_ranks(train_three_steps, 2, 2, True):
        assert_same_training(trained, by_hand)
