"""Norms are those of the weights after the step and of the activations in it, and hooks do not stay."""

import json

import pytest
import torch
from trainkit_workers import make_settings, make_trainer, weights_of

from trainkit.distributed.parallel import World
from trainkit.logging.jsonl import JsonlLogger
from trainkit.norms import NormRecorder


def train(tmp_path, run_steps=4, **options):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    trainer = make_trainer(World(), make_settings(run_steps, log_every=2), callbacks=[logger])
    recorder = NormRecorder({"mix": trainer.model.mix, "norm": trainer.model.norm}, log_every=2, **options)
    trainer.callbacks.append(recorder)
    seen = []
    trainer.model.mix.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    trainer.fit()
    return trainer, [json.loads(line) for line in logger.path.read_text().splitlines()], seen


def test_weights_are_those_after_the_step_and_activations_those_in_it(tmp_path):
    trainer, lines, seen = train(tmp_path)
    assert [line["step"] for line in lines] == [2, 4]
    weights = weights_of(trainer)
    last = torch.cat([weights["mix.weight"].flatten(), weights["mix.bias"]]).norm().item()
    assert lines[-1]["weight_norm/mix"] == pytest.approx(last, rel=1e-5)
    for line in lines:
        assert line["activation_rms/mix"] == pytest.approx(seen[line["step"] - 1].square().mean().sqrt().item())
        assert 0.5 < line["activation_rms/norm"] < 2, "a layer norm puts out unit variance"


def test_each_kind_can_be_had_alone_and_no_hook_is_left_behind(tmp_path):
    trainer, lines, _ = train(tmp_path, has_activations=False)
    assert "weight_norm/mix" in lines[0]
    assert not any(name.startswith("activation") for name in lines[0])
    trainer, lines, _ = train(tmp_path / "other", has_weights=False)
    assert "activation_rms/norm" in lines[0]
    assert not any(name.startswith("weight_norm") for name in lines[0])
    assert not trainer.model.norm._forward_hooks
