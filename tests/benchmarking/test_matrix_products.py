"""The benchmark of matrix products prints every way beside torch's."""

import re

import pytest
import torch

from benchmarking import matrix_products


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_every_way_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(matrix_products, "SHAPES", ((24, 16),))
    monkeypatch.setattr(matrix_products, "FEW", (1, 3))
    monkeypatch.setattr(matrix_products, "MANY", (40,))
    monkeypatch.setattr(matrix_products, "MULTIPLICATIONS", 1)
    assert matrix_products.main(["--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"1 row\s+3 rows$", lines[4])
    assert [line.split("  ")[0] for line in lines if line.startswith("24 x 16")] == ["24 x 16"] * 4
    ratios = [line for line in lines if "times as fast" in line and "[" not in line]
    assert [re.fullmatch(r"\s+(oneDNN|kernel), times as fast(\s+\d+\.\d\d){2}", line)[1] for line in ratios] == [
        "oneDNN",
        "kernel",
    ]
    rates = [re.search(r"\d+ -> \d+, \d+\.\d\d$", line) for line in lines if "gradient" in line or "forward" in line]
    assert [rate is not None for rate in rates] == [True] * 3
