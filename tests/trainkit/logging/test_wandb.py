"""wandb may fail in any way; training goes on."""

import sys
import types

import pytest
from conftest import free_port
from trainkit_workers import make_settings, make_trainer

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.distributed.parallel import World
from trainkit.logging.wandb import WandbLogger, WandbSettings


class FakeRun:
    id = "abc123"

    def __init__(self, fails_at_log: bool):
        self.logged, self.finished, self.fails_at_log = [], False, fails_at_log

    def define_metric(self, *_names, **_options):
        pass

    def log(self, values):
        if self.fails_at_log:
            raise BrokenPipeError("the helper process died")
        self.logged.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch):
    """Stand in for wandb; `failing` names the modes whose init raises."""
    fake = types.ModuleType("wandb")
    fake.failing, fake.runs, fake.calls, fake.fails_at_log = set(), [], [], False
    fake.Settings = dict

    def init(**options):
        fake.calls.append(options)
        if options["mode"] in fake.failing:
            raise RuntimeError("no key, no network")
        fake.runs.append(FakeRun(fake.fails_at_log))
        return fake.runs[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def train(tmp_path, **parts) -> int:
    logger = WandbLogger(WandbSettings(project="toy"), tmp_path, unit="tokens")
    return make_trainer(World(), make_settings(), callbacks=[logger], **parts).fit().step


def test_steps_are_mirrored_and_the_run_id_survives_a_resume(fake_wandb, tmp_path):
    manager = CheckpointManager(tmp_path / "checkpoints")
    assert train(tmp_path, checkpoints=manager) == 3
    assert [values["step"] for values in fake_wandb.runs[0].logged] == [1, 2, 3]
    assert fake_wandb.runs[0].finished
    assert fake_wandb.calls[0]["settings"]["init_timeout"] == 5

    logger = WandbLogger(WandbSettings(project="toy"), tmp_path)
    trainer = make_trainer(World(), make_settings(5), callbacks=[logger], checkpoints=manager)
    trainer.resume(manager.latest())
    trainer.fit()
    assert (fake_wandb.calls[1]["id"], fake_wandb.calls[1]["resume"]) == ("abc123", "allow")


def test_without_network_it_logs_offline(fake_wandb, tmp_path):
    fake_wandb.failing = {None}
    with pytest.warns(UserWarning, match="logging offline instead .RuntimeError: no key, no network"):
        assert train(tmp_path) == 3
    assert fake_wandb.calls[1]["mode"] == "offline"
    assert len(fake_wandb.runs[0].logged) == 3


def test_when_nothing_works_training_goes_on_without_it(fake_wandb, tmp_path):
    fake_wandb.failing = {None, "offline"}
    with pytest.warns(UserWarning, match="going on without it"):
        assert train(tmp_path) == 3


def test_a_helper_that_dies_while_training_is_reported_once(fake_wandb, tmp_path):
    fake_wandb.fails_at_log = True
    with pytest.warns(UserWarning, match="wandb stopped working, going on without it .BrokenPipeError") as caught:
        assert train(tmp_path) == 3
    assert len([warning for warning in caught if "stopped working" in str(warning.message)]) == 1


@pytest.fixture
def fresh_wandb():
    """wandb reads its environment once per process; forget what it read."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_wandb")
def test_a_dead_endpoint_does_not_stop_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.warns(UserWarning, match="logging offline instead"):
        assert train(tmp_path) == 3
    assert list(tmp_path.glob("wandb/offline-run-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.filterwarnings("error:wandb")
def test_offline_mode_from_the_environment_works(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert train(tmp_path) == 3
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
