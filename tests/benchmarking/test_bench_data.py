"""The benchmark of the data runs, and prints a figure for everything it measures."""

import re

import pytest

from benchmarking import bench_data


@pytest.mark.long
def test_every_line_has_its_figures(monkeypatch, capsys):
    monkeypatch.setattr(bench_data, "MEASURED_S", 0.1)
    monkeypatch.setattr(bench_data, "DISTINCT_BYTES", 10**5)
    assert bench_data.main(["--megabytes", "2", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    lines = dict(re.findall(r"^(\S.*?)  +([\d.]+ +\d+(?: +\d+)?)$", printed, re.MULTILINE))
    assert list(lines) == [
        "tokenizer alone, one thread",
        "prepare 0.2 MB, 1 processes",
        "prepare 2 MB, 1 processes",
        "the same, start and end aside",
        "packed -> null model",
        "rows -> null model",
        "megatron -> null model",
    ]
    assert all(float(figure.split()[0]) > 0 for figure in lines.values())
