"""Models shared by FSDP: what each rank holds, that runs resume exactly, and that anybody can read what they saved."""

import pytest
import torch
from parity_workers import Cell, DeepModel, make_deep_trainer
from safetensors.torch import load_file
from sharding_workers import (
    count_held,
    evaluate_uneven,
    look_inside,
    refuse,
    step_by_device_work_alone,
    train_and_resume,
    train_with_and_without_evaluations,
)

from trainkit.distributed.parallel import World


def successes(values: list) -> list:
    """Return the ranks' values, or raise the first exception among them."""
    for value in values:
        if isinstance(value, Exception):
            raise value
    return values


def test_each_rank_holds_its_part_of_weights_and_optimizer_state_and_no_more(run_ranks):
    held = successes(run_ranks(count_held, 2))
    size = held[0]["whole"]
    assert sum(rank["parameters"] for rank in held) == size
    assert sum(rank["state"] for rank in held) == 2 * size, "two moments"
    assert max(rank["parameters"] for rank in held) < 0.6 * size


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_a_sharded_run_resumes_bitwise(optimizer, run_ranks, tmp_path):
    cell = Cell(accumulation=2, strategy="fsdp", optimizer=optimizer)
    for rank in successes(run_ranks(train_and_resume, 2, str(tmp_path), cell, cell)):
        for part, expected in rank["uninterrupted"].items():
            found = rank["resumed"][part]
            assert found.keys() == expected.keys()
            assert [name for name in expected if not torch.equal(found[name], expected[name])] == [], part


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("first", "then"), [("fsdp", "ddp"), ("ddp", "fsdp")])
def test_a_run_may_go_on_under_the_other_strategy(first, then, optimizer, run_ranks, tmp_path):
    cells = [Cell(accumulation=2, strategy=strategy, optimizer=optimizer) for strategy in (first, then)]
    for rank in successes(run_ranks(train_and_resume, 2, str(tmp_path), *cells)):
        for part in ("weights", "averages", "optimizer"):
            for name, expected in rank["uninterrupted"][part].items():
                torch.testing.assert_close(rank["resumed"][part][name], expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_one_process_reads_the_weights_of_a_sharded_run(run_ranks, tmp_path):
    cell = Cell(strategy="fsdp")
    rank = successes(run_ranks(train_and_resume, 2, str(tmp_path), cell, cell))[0]
    for file, part in (("model.safetensors", "weights"), ("model_averaged.safetensors", "averages")):
        saved = load_file(tmp_path / "whole" / "latest" / file)
        expected = rank["uninterrupted"][part]
        assert saved.keys() == expected.keys() == dict(DeepModel().named_parameters()).keys()
        assert all(torch.equal(saved[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_ranks_with_different_numbers_of_validation_batches_evaluate_a_sharded_model(run_ranks):
    alone = successes(run_ranks(evaluate_uneven, 2, "ddp", [3, 0]))[0]
    for rank in successes(run_ranks(evaluate_uneven, 2, "fsdp", [3, 0])):
        assert rank == pytest.approx(alone)


def test_evaluating_the_average_of_a_sharded_model_leaves_no_trace_in_training(run_ranks):
    for evaluated, undisturbed in successes(run_ranks(train_with_and_without_evaluations, 2)):
        assert [name for name, tensor in undisturbed.items() if not torch.equal(evaluated[name], tensor)] == []


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_bad_step_leaves_sharded_parameters_alone_without_asking_the_host(optimizer, run_ranks):
    for found in successes(run_ranks(step_by_device_work_alone, 2, optimizer)):
        assert found == {"is_equal": True, "is_finite": True}


def test_blocks_are_gathered_in_the_narrow_type_and_gradients_summed_in_float32(run_ranks):
    for seen in successes(run_ranks(look_inside, 2)):
        assert seen == {
            "block": torch.bfloat16, "outside": torch.float32, "gradients": {torch.float32}, "is_sharded": True,
        }  # fmt: skip


def test_arrangements_that_cannot_work_are_refused(run_ranks):
    half, twice, no_blocks, unknown = successes(run_ranks(refuse, 1))[0]
    assert "float16 would lose gradients: use precision bfloat16" in half
    assert "two blocks share a parameter" in twice
    assert "name them in Task.blocks" in no_blocks
    assert unknown == "unknown strategy 'zero': use ddp or fsdp"


def test_recomputed_blocks_run_twice_in_each_of_two_steps():
    trainer = make_deep_trainer(World(), Cell(recomputes=True), changes={"max_steps": 2})
    calls = []
    trainer.model.layers[0].up.register_forward_hook(lambda *_: calls.append(1))
    trainer.fit()
    assert len(calls) == 4
