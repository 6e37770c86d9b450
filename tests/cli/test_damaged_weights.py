"""Generating from weights that were damaged on the disk is refused, with the name of what can be used instead."""

import os
import shutil
from pathlib import Path

import pytest

from cli import infer
from transformerlm.checkpoint import load_model
from transformerlm.checkpoint_description import CheckpointError


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # one that a float hides: the file parses and the model loads
    path.write_bytes(content)


def test_a_flipped_bit_is_found_and_an_intact_checkpoint_offered(trained, run):
    shutil.copytree(trained("autoregressive"), "runs/mine", symlinks=True)
    checkpoints = Path("runs/mine/checkpoints").resolve()
    shutil.copytree(checkpoints / "step_00000002", checkpoints / "step_00000001")
    flip_a_bit(checkpoints / "step_00000002" / "model.safetensors")
    outcome = run(infer.main, "infer.toml", "checkpoint.path=runs/mine", "inference.total_length=24")
    assert outcome.code == 2
    assert f"{checkpoints}/step_00000002/model.safetensors: damaged" in outcome.err
    assert f"use {checkpoints}/step_00000001" in outcome.err
    flip_a_bit(checkpoints / "step_00000001" / "model.safetensors")
    with pytest.raises(CheckpointError, match="no intact checkpoint lies beside it"):
        load_model("runs/mine")
    for folder in checkpoints.glob("step_*"):
        os.remove(folder / "manifest.json")
    assert load_model("runs/mine").objective == "autoregressive", "a model from elsewhere has no manifest"
