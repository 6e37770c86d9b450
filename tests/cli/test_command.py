"""Help, errors and exit codes, the same for every command."""

import os
import subprocess
import sys
import types

import pytest

from cli import bench_infer, bench_tokenizer, bench_train, export, import_model, infer, sweep, train, train_tokenizer
from cli import eval as eval_command
from cli.command import report

COMMANDS = {
    "cli.train": "train.toml",
    "cli.infer": "infer.toml",
    "cli.eval": "eval.toml",
    "cli.train_tokenizer": "train_tokenizer.toml",
    "cli.bench_infer": "bench_infer.toml",
    "cli.bench_train": "bench_train.toml",
    "cli.sweep": "sweep_infer.toml",
    "cli.export": "export.toml",
    "cli.import_model": "import.toml",
    "cli.bench_tokenizer": "bench_tokenizer.toml",
}
PROBE = """
import runpy, sys
sys.argv = [{module!r}, *{arguments!r}]
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as exit:
    assert not exit.code, exit.code
print("loaded:", [name for name in ("torch", "pydantic", "wandb", "datasets", "numpy") if name in sys.modules])
"""


def probe(module, *arguments):
    """Run a command and tell which heavy packages it imported."""
    code = PROBE.format(module=module, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_help_teaches_and_imports_nothing_heavy(module):
    out = probe(module, "--help")
    assert "examples:" in out
    assert "--set KEY=VALUE" in out
    assert "loaded: []" in out


@pytest.mark.parametrize(("module", "config"), COMMANDS.items())
def test_printed_configuration_can_be_fed_back_and_needs_no_torch(module, config, tmp_path):
    out = probe(module, "--config", f"config/resources/{config}", "--print-config")
    toml, _, loaded = out.rpartition("loaded: ")
    assert loaded.strip() == "['pydantic']"
    (tmp_path / "again.toml").write_text(toml)
    assert probe(module, "--config", "again.toml", "--print-config").startswith(toml)


@pytest.mark.parametrize(
    "module",
    [
        train,
        infer,
        eval_command,
        train_tokenizer,
        bench_infer,
        bench_tokenizer,
        bench_train,
        sweep,
        export,
        import_model,
    ],
)
def test_a_missing_configuration_is_a_usage_error(module, run):
    outcome = run(module.main, "trian.toml")
    assert outcome.code == 2
    assert "no such file" in outcome.err
    assert "Traceback" not in outcome.err


def test_unknown_options_are_refused_with_usage(capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--confg", "x"])
    assert exit_info.value.code == 2
    assert "usage: transformerlm-train" in capsys.readouterr().err


def test_every_problem_is_shown_at_once(run):
    wrong = ["training.batch_sise=3", "model.num_heads=7", "optimizer.warmup_steps=100000", "model.vocab_size=100"]
    outcome = run(train.main, "train.toml", *wrong)
    assert outcome.code == 2
    assert "training.batch_sise" in outcome.err
    assert "did you mean" in outcome.err
    outcome = run(train.main, "train.toml", *wrong[1:])
    assert "model.num_heads" in outcome.err
    assert "warmup" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(run):
    outcome = run(train.main, "train.toml", "model.vocab_size=100")
    assert outcome.code == 2
    assert "model.vocab_size: 100" in outcome.err
    assert "4096" in outcome.err


def test_another_package_named_config_is_named(monkeypatch, run):
    foreign = types.ModuleType("config")
    foreign.__file__ = "/elsewhere/config/__init__.py"
    monkeypatch.setitem(sys.modules, "config", foreign)
    outcome = run(train.main, "train.toml")
    assert outcome.code == 2
    assert "another package named config is in the way: /elsewhere/config/__init__.py" in outcome.err


def test_a_completion_script_is_printed(capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--print-completion", "bash"])
    assert exit_info.value.code == 0
    assert "transformerlm-train" in capsys.readouterr().out


def test_a_closed_pipe_is_quiet(start):
    process = start("-m", "cli.train", "--config", "config/resources/train.toml", "--print-config")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_no_color_is_honoured_and_reports_are_plain(capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
    assert report(["a: b", "    detail"], 1) == 1
    assert capsys.readouterr().err == "error: a: b\n    detail\n"
