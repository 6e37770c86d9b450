"""wandb may be offline, unreachable, silent, dead or stuck; training goes on at its own pace, and ends in time."""

import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import free_port
from trainkit_workers import SlowSource, make_record, make_settings, make_trainer

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.distributed.parallel import World
from trainkit.logging import wandb as ours
from trainkit.logging.wandb import WandbLogger, WandbSettings

pytest.importorskip("wandb")


class Watched(WandbLogger):
    """Keep how long each record held training up."""

    def __init__(self, folder: Path, **settings):
        super().__init__(WandbSettings(project="toy", **settings), folder, unit="tokens")
        self.held_up_s: list[float] = []

    def on_log(self, record):
        began_s = time.perf_counter()
        super().on_log(record)
        self.held_up_s.append(time.perf_counter() - began_s)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """No key, no settings of the machine's owner, and fsync as it is: the helper is not ours to patch."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accept connections and never answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


def train(logger: WandbLogger, max_steps: int = 3, **parts):
    trainer = make_trainer(World(), make_settings(max_steps), callbacks=[logger], **parts)
    manager = parts.get("checkpoints")
    if manager and manager.latest():
        trainer.resume(manager.latest())
    return trainer.fit().step


def recorded(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_offline_mode_from_the_environment_records_everything_under_an_id_that_survives_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    manager = CheckpointManager(tmp_path / "checkpoints")
    first = Watched(tmp_path, config={"code": "abc-dirty"}, uploads_checkpoints=True)
    assert train(first, 3, checkpoints=manager) == 3
    content = recorded(tmp_path)
    for word in ("loss_ema", "tokens_per_second", "abc-dirty", f"checkpoint-{first.run_id}", "step_3"):
        assert word.encode() in content, word
    second = Watched(tmp_path)
    assert second.run_id != first.run_id
    assert train(second, 5, checkpoints=manager) == 5
    assert second.run_id == first.run_id
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{first.run_id}.wandb"))) == 2


@pytest.mark.slow
def test_without_a_key_it_goes_on_offline_and_says_how_to_upload_later(tmp_path, capfd):
    assert train(Watched(tmp_path)) == 3
    assert b"loss_ema" in recorded(tmp_path)
    said = capfd.readouterr().err
    assert "warning: wandb cannot be reached, logging offline instead" in said
    assert "wandb sync" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refusing", pytest.param("silent", marks=pytest.mark.long)])
def test_a_dead_endpoint_neither_stops_nor_slows_training(kind, silent_server, tmp_path, monkeypatch, capfd):
    port = silent_server if kind == "silent" else free_port()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = Watched(tmp_path, init_timeout_s=2)
    assert train(logger, 50) == 50
    assert max(logger.held_up_s) < 0.5, "it did not wait for the network"
    assert b"loss_ema" in recorded(tmp_path), "what came before the server was given up is there too"
    assert "logging offline instead" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_wandb_process_that_dies_or_hangs_while_training_is_left_behind(blow, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")

    class Struck(Watched):
        def on_log(self, record):
            if record.step == 5:
                os.killpg(self._helper._process.pid, blow)
                time.sleep(0.2)
            super().on_log(record)

    logger = Struck(tmp_path, finish_timeout_s=1)
    began_s = time.monotonic()
    with pytest.warns(UserWarning, match="training goes on without wandb") as caught:
        assert train(logger, 20, source=SlowSource(World(), 1)) == 20
    assert len([each for each in caught if "without wandb" in str(each.message)]) == 1
    assert max(logger.held_up_s) < 0.5
    assert time.monotonic() - began_s < 20


@pytest.mark.slow
def test_a_process_that_reads_nothing_fills_a_queue_and_is_ended(monkeypatch):
    monkeypatch.setattr(ours, "_MAX_WAITING", 3)
    helper = ours._Helper([sys.executable, "-c", "import time; time.sleep(60)"])

    def send_more_than_a_pipe_holds():
        for _ in range(2000):
            helper.send({"kind": "log", "values": make_record().to_json()})

    with pytest.warns(UserWarning, match="wandb takes nothing any more, and 3 records wait") as caught:
        send_more_than_a_pipe_holds()
    assert len(caught) == 1
    began_s = time.monotonic()
    with pytest.warns(UserWarning, match="was not done after 0.1 s"):
        helper.close(0.1)
    assert time.monotonic() - began_s < 10
    assert helper._process.poll() is not None


def test_disabled_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "_HELPER", tmp_path / "there is no such program")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(Watched(tmp_path, mode="disabled")) == 3
    assert not (tmp_path / "wandb").exists()
