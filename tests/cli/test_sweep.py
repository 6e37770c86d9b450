"""transformerlm-sweep writes a line per combination, a table and a page, and names what it leaves out."""

import json
import re
import shutil
from pathlib import Path

from cli import sweep

GRID = [
    "inference.total_length=32",
    "sweep.remasking=['low_confidence','threshold']",
    "sweep.steps=[1,8]",
    "sweep.confidence_threshold=[0.9]",
    "sweep.cache=['none','dual','block']",
    "inference.block_length=16",
    "sweep.num_texts=2",
    "sweep.output=out",
]


def test_every_possible_combination_is_graded(trained, run):
    Path("runs").mkdir()
    shutil.copytree(trained("masked_diffusion"), "runs/latest", symlinks=True)
    outcome = run(sweep.main, "sweep_infer.toml", *GRID)
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    combinations = [(line["remasking"], line.get("steps"), line["cache"]) for line in lines]
    assert combinations[:2] == [("low_confidence", 8, "none"), ("low_confidence", 8, "dual")]
    assert combinations[2:] == [("threshold", None, "none"), ("threshold", None, "dual")]
    assert all(line["num_texts"] == 2 and 0 <= line["agreed_share"] <= 1 for line in lines)
    assert lines[1]["forwards_per_token"] < lines[0]["forwards_per_token"]
    assert len(outcome.out.splitlines()) == 1 + 4
    assert (
        outcome.err.count("left out:") == 2 + 3
    )  # steps = 1 is fewer than the blocks, block is no cache of this model
    page = Path("out.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r"const data = (.*);\n", page).group(1))
    assert [each["agreed_share"] for each in data["results"]] == [line["agreed_share"] for line in lines]


def test_a_grid_without_a_possible_combination_is_refused(trained, run):
    Path("runs").mkdir()
    shutil.copytree(trained("masked_diffusion"), "runs/latest", symlinks=True)
    outcome = run(sweep.main, "sweep_infer.toml", *GRID, "sweep.cache=['block']")
    assert outcome.code == 2
    assert "no combination is possible" in outcome.err
    assert "block-causal models only" in outcome.err
