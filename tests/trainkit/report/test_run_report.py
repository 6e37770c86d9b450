"""The report shows the run in a real browser, asks no network for anything, and never stops training."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from trainkit_workers import ToySource, make_settings, make_trainer

from trainkit.callbacks import Callback
from trainkit.distributed.parallel import World
from trainkit.evaluation import Validation
from trainkit.logging.jsonl import JsonlLogger
from trainkit.report import run_report
from trainkit.report.page import render_page
from trainkit.report.run_report import FiguresTable, ReportFacts, RunReport

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
FACTS = ReportFacts("a <run>", "about it", "tokens", "[model]\nname = 'x'\n", {"python": "3"})


def look_at(page: Path, window: str = "1200,2400") -> str:
    """Open a page without network and return the document as the browser holds it after the scripts ran."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={window}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'browser'}"]
    command += ["--virtual-time-budget=2000", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    problems = [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
    assert not problems, problems
    return seen.stdout


def train(folder: Path, max_steps: int, *more: Callback, log_every: int = 1) -> RunReport:
    report = RunReport(folder, FACTS)
    validation = Validation(lambda: [next(ToySource(World(), 1))], every=2, max_batches=1)
    callbacks = [JsonlLogger(folder / "metrics.jsonl", "tokens"), *more, report]
    settings = make_settings(max_steps, log_every=log_every)
    make_trainer(World(), settings, callbacks=callbacks, validation=validation).fit()
    return report


def read_data(folder: Path) -> dict:
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r"^const data = (.*);$", page, re.MULTILINE)[1])


def test_a_run_that_ended_shows_all_it_recorded(tmp_path):
    train(tmp_path, 5)
    data = read_data(tmp_path)
    assert (data["state"], data["status"], data["max_steps"]) == ("finished", "finished after step 5", 5)
    assert data["steps"]["step"] == [1, 2, 3, 4, 5]
    assert data["evaluations"]["step"] == [2, 4, 5]
    assert data["config"] == FACTS.config
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert data["steps"]["loss"] == pytest.approx([line["loss"] for line in lines if "loss" in line], rel=1e-5)


@pytest.mark.parametrize(("share", "evaluations_seen"), [(1e9, [0, 0, 1, 1, 2]), (1e-9, [0, 0, 0, 0, 0])])
def test_the_page_is_refreshed_at_validation_unless_that_would_take_too_much_time(
    share, evaluations_seen, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_report, "_MAX_TIME_SHARE", share)
    seen = []

    class Look(Callback):
        def on_step_start(self, step):
            seen.append(len(read_data(tmp_path)["evaluations"].get("step", [])))

    train(tmp_path, 5, Look())
    assert seen == evaluations_seen
    assert read_data(tmp_path)["evaluations"]["step"] == [2, 4, 5], "the last page is always written"


def test_a_run_that_fails_says_so_on_its_page(tmp_path):
    class Fail(Callback):
        def on_step_start(self, step):
            if step == 3:
                raise KeyError("broken")

    with pytest.raises(KeyError):
        train(tmp_path, 5, Fail())
    assert read_data(tmp_path)["status"] == "failed after step 2: KeyError"


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.warns(UserWarning, match=r"report.html was not written, training goes on .IsADirectoryError"):
        train(tmp_path, 3)
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.warns(UserWarning, match="was not written"):
        RunReport(tmp_path, FACTS).write()


def test_the_page_names_no_address_and_text_cannot_leave_its_string():
    page = render_page("run_report.html", {"title": "</script><script>alert(1)</script><!--", "x": float("nan")})
    assert page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert '"x":null' in page
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}, "which is a name, not a place"
    assert not re.search(r"<(link|img|iframe)\b|\bsrc=|@import|url\((?!#)|fetch\(|XMLHttpRequest", page)


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("max_steps", [2, pytest.param(400, marks=pytest.mark.long)])
def test_a_browser_draws_every_chart_without_an_error(tmp_path, max_steps):
    samples = [{"step": step, "prompt": "Once", "text": f"Once <b>{step}</b>"} for step in (1, max_steps)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    report = train(tmp_path, max_steps)
    report.table = FiguresTable("Closing", ["", "nats"], [["this model", "<= 1.5"]])
    report.write()
    document = look_at(tmp_path / "report.html")
    titles = re.findall(r'<svg[^>]*aria-label="([^"]+)"', document)
    assert titles[:2] == ["Loss", "Learning rate"]
    assert {"Throughput, tokens per second", "Gradient norm, before clipping", "Accuracy"} <= set(titles)
    paths = re.findall(r'<path d="([^"]*)"', document)
    assert len(paths) >= len(titles)
    assert all(re.fullmatch(r"([ML]-?[\d.]+,-?[\d.]+)+", path) for path in paths), "no NaN in any curve"
    assert f"of {max_steps} steps" in document
    assert "a &lt;run&gt;" in document
    assert f"&lt;b&gt;{max_steps}&lt;/b&gt;" in document
    assert "&lt;= 1.5" in document


@needs_browser
@pytest.mark.slow
def test_a_run_that_has_recorded_nothing_yet_has_a_page_too(tmp_path):
    RunReport(tmp_path, FACTS).write()
    assert "nothing recorded yet" in look_at(tmp_path / "report.html")


@needs_browser
@pytest.mark.slow
def test_values_that_hardly_differ_have_an_axis_on_a_logarithmic_scale(tmp_path):
    lines = [{"step": step, "loss": 3.0, "loss_ema": 3.0, "grad_norm": 0.81 + step / 100} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    RunReport(tmp_path, FACTS).write()
    document = look_at(tmp_path / "report.html")
    norms = document.partition('aria-label="Gradient norm, before clipping"')[2].partition("</svg>")[0]
    assert len(re.findall(r'text-anchor="end"', norms)) >= 2
