"""Trials answer and leave nothing behind but their report."""

import json
import os
import re
from pathlib import Path

import pytest

from cli.train import main


def found_files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file() and path.parts[0] != "config")


def test_the_range_test_leaves_one_page_and_no_run(small_arguments, capsys, monkeypatch):
    monkeypatch.setattr("cli.finders.RANGE_TEST_STEPS", 30)
    assert main([*small_arguments("training.max_steps=100000"), "--lr-range-test", "page.html"]) == 0
    said = capsys.readouterr().out
    assert "plotted in page.html" in said
    assert found_files() == ["page.html"]
    data = json.loads(re.search(r"^const data = (.*);$", Path("page.html").read_text(), re.MULTILINE)[1])
    assert 10 < len(data["rates"]) <= 30
    assert data["rates"][0] == pytest.approx(8e-6)
    assert len(data["losses"]) == len(data["smoothed"]) == len(data["rates"])


@pytest.mark.long
def test_the_batch_finder_keeps_the_global_batch_and_leaves_nothing(small_arguments, start):
    arguments = small_arguments("training.batch_size=8", "training.grad_accum_steps=2", "training.device=cpu")
    finder = start("-m", "cli.train", *arguments, "--find-batch-size")
    out, err = finder.communicate(timeout=300)
    assert finder.returncode == 0, err
    assert [int(rows) for rows in re.findall(r"^ +(\d+) +\d+ +[\d.]+ GB", out, re.MULTILINE)] == [8, 16]
    assert "--set training.batch_size=16 --set training.grad_accum_steps=1" in out
    assert found_files() == []


@pytest.mark.slow
def test_without_room_for_a_single_row_the_batch_finder_says_so(small_arguments, start):
    arguments = small_arguments("training.batch_size=2", "training.device=cpu")
    finder = start("-m", "cli.train", *arguments, "--find-batch-size", "--memory-limit", "0.05")
    out, err = finder.communicate(timeout=300)
    assert (finder.returncode, err) == (1, "")
    assert "not even one row fits" in out
    assert os.listdir() == ["config"]


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "much"])
def test_a_memory_limit_must_be_a_number_above_zero(small_arguments, limit, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*small_arguments(), "--find-batch-size", "--memory-limit", limit])
    assert stopped.value.code == 2
    assert "--memory-limit: invalid positive_number value" in capsys.readouterr().err
