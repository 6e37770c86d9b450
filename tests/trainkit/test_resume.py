"""A resumed run is the uninterrupted run, to the last bit."""

import re

import pytest
import torch
from trainkit_workers import (
    interrupted_and_whole,
    make_settings,
    make_trainer,
    resume_here,
    train_with_interruption,
    weights_of,
)

from trainkit.checkpointing.finding import find_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.manifest import write_manifest
from trainkit.distributed.parallel import World
from trainkit.errors import CheckpointError
from trainkit.state import TrainState
from trainkit.training.optim import MuonSettings


def assert_resume_is_bitwise(first: dict, second: dict, whole: dict) -> None:
    for name, tensor in whole["weights"].items():
        assert torch.equal(second["weights"][name], tensor), name
        assert not torch.equal(first["weights"][name], tensor), f"{name} did not move after the interruption"
    for index, moments in whole["optimizer"].items():
        for name, tensor in moments.items():
            assert torch.equal(second["optimizer"][index][name], tensor), f"{index} {name}"
    assert first["seen"] + second["seen"] == whole["seen"]
    assert torch.equal(second["rng"], whole["rng"])
    assert second["weight_seen"] == whole["weight_seen"]


def test_resume_at_step_k_equals_uninterrupted_run(tmp_path):
    assert_resume_is_bitwise(*interrupted_and_whole(World(), str(tmp_path)))


def test_resume_on_two_ranks_equals_uninterrupted_run_on_each_and_refuses_another_number_of_ranks(tmp_path, run_ranks):
    ends = run_ranks(interrupted_and_whole, 2, str(tmp_path))
    for first, second, whole in ends:
        assert_resume_is_bitwise(first, second, whole)
    assert not torch.equal(ends[0][2]["rng"], ends[1][2]["rng"]), "ranks must not drop out the same units"

    with pytest.raises(CheckpointError, match=r"saved by 2 processes and this run has 1.*resume with 2 processes"):
        resume_here(World(), f"{tmp_path}/whole")


@pytest.fixture
def saved(tmp_path):
    train_with_interruption(World(), str(tmp_path), stop_at=3, max_steps=7)
    return find_checkpoint(tmp_path)


def test_resume_refuses_weights_of_another_model_and_names_what_differs(saved):
    trainer = make_trainer(World(), make_settings())
    trainer.model.mix = torch.nn.Linear(6, 4)
    trainer.model.extra = torch.nn.Linear(2, 2)
    expected = "extra.bias is missing; extra.weight is missing; mix.bias has shape [6] instead of [4]"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        trainer.resume(saved)


def test_resume_refuses_another_optimizer_and_names_both(saved):
    trainer = make_trainer(World(), make_settings(optimizer=MuonSettings()))
    before = weights_of(trainer)
    with pytest.raises(CheckpointError, match=r"saved with optimizer AdamW and this run has Muon\+AdamW: use the same"):
        trainer.resume(saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(trainer).items()), "nothing was loaded"


def test_resume_refuses_an_optimizer_state_of_other_parameters(saved):
    content = torch.load(saved / "optimizer.pt")
    content["optimizer"]["mixed.weight"] = content["optimizer"].pop("mix.weight")
    torch.save(content, saved / "optimizer.pt")
    (saved / "manifest.json").unlink()
    write_manifest(saved)
    expected = "optimizer.pt belongs to another optimizer or model (what it holds or lacks: mix.weight, mixed.weight)"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        make_trainer(World(), make_settings()).resume(saved)


def test_settings_of_the_optimizer_come_from_the_new_run_and_moments_from_the_checkpoint(saved):
    trainer = make_trainer(World(), make_settings(grad_accum_steps=2))
    for group in trainer.state.optimizer.param_groups:
        group["weight_decay"] = 0.25
    trainer.resume(saved)
    assert {group["weight_decay"] for group in trainer.state.optimizer.param_groups} == {0.25}
    assert all(moments["exp_avg"].abs().sum() > 0 for moments in trainer.state.optimizer.state.values())


def test_a_source_with_state_that_could_not_be_read_back_is_refused_when_saving(tmp_path):
    trainer = make_trainer(World(), make_settings(), checkpoints=CheckpointManager(tmp_path))
    trainer.source.state_dict = lambda: {"shards": [{"files": {1, 2}}]}
    with pytest.raises(TypeError, match=r"\['shards'\]\[0\]\['files'\] is a set"):
        trainer.save()


def test_tied_weights_are_saved_once_and_stay_tied(saved):
    from safetensors.torch import load_file

    assert sorted(load_file(saved / "model.safetensors")) == [
        "embedding.weight", "mix.bias", "mix.weight", "norm.bias", "norm.weight",
    ]  # fmt: skip
    trainer = make_trainer(World(), make_settings(grad_accum_steps=2))
    trainer.resume(saved)
    assert trainer.model.head.weight is trainer.model.embedding.weight


def test_state_holds_every_changing_part():
    assert {"model", "optimizer", "scaler", "source", "callbacks", "step", "weight_seen"} <= set(TrainState.__slots__)
