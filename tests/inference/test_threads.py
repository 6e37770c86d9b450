"""Small passes use few threads, and leave the setting as they found it."""

from collections.abc import Iterator

import pytest
import torch

from transformerlm.inference.threads import FLOPS_PER_THREAD, PassThreads


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_threads_grow_with_the_work_up_to_those_there_are(make_model, four_threads):
    threads = PassThreads(make_model())
    per_thread = FLOPS_PER_THREAD / threads.flops_per_position
    counts = [threads.worthwhile(round(share * per_thread)) for share in (0, 0.5, 1.5, 2.5, 3.5, 100)]
    assert counts == [1, 1, 1, 2, 3, 4]


def test_a_pass_over_one_position_takes_twice_its_weights_in_operations(make_model):
    model = make_model()
    matrices = sum(weight.numel() for name, weight in model.named_parameters() if weight.ndim == 2)
    embedding = model.embedding.weight.numel()
    attention = 4 * model.shape.num_layers * model.shape.d_model  # one visible key
    assert PassThreads(model).flops_per_position == 2 * (matrices - embedding) + attention


def test_the_setting_holds_inside_the_block_only(make_model, four_threads):
    threads = PassThreads(make_model())
    with threads.lent_to(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4
    with pytest.raises(RuntimeError), threads.lent_to(1):
        raise RuntimeError
    assert torch.get_num_threads() == 4


def test_one_thread_is_never_made_more(make_model, four_threads):
    torch.set_num_threads(1)
    threads = PassThreads(make_model())
    with threads.lent_to(10**9):
        assert torch.get_num_threads() == 1
