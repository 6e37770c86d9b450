"""Against a real S3 server on this machine: the same bytes come back, and an outage is survived."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file
from trainkit_workers import make_settings, make_trainer, weights_of

from trainkit.callbacks import Callback
from trainkit.checkpointing.finding import verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.remote import RemoteCheckpoints, fetch_checkpoint
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

pytestmark = pytest.mark.slow


class Server:
    """A moto server as a process of its own, which can be killed and started again; it keeps nothing."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self.process.poll() is None, "the server died"
                assert time.monotonic() < deadline_s, "the server does not answer"
                time.sleep(0.1)
            else:
                break
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(monkeypatch):
    server = Server()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # or it would go on talking to the server of the test before
    monkeypatch.setattr("trainkit.checkpointing.uploader.LONGEST_DELAY_S", 2.0)
    yield server
    server.stop()


class Wait(Callback):
    """Hold up the steps, so that something can happen meanwhile; and keep what is told."""

    def __init__(self, server: Server):
        self.server = server
        self.notices: list[str] = []

    def on_step_end(self, record):
        time.sleep(0.3)
        if record.step == 6:
            threading.Thread(target=self.server.start).start()

    def on_notice(self, step, message):
        self.notices.append(message)


def test_a_run_is_uploaded_thinned_out_and_resumed_from_s3(server, tmp_path):
    server.start()
    url = "s3://bucket/runs/mine"
    manager = CheckpointManager(tmp_path / "here", Retention(keep_last=2), remote_url=url)
    trainer = make_trainer(World(), make_settings(6, save_every=1), dropout=0.3, checkpoints=manager)
    trainer.fit()
    remote = RemoteCheckpoints(url)
    assert list(remote.list_complete()) == ["step_00000005", "step_00000006"]
    fetched = fetch_checkpoint(url, tmp_path / "there")
    verify_checkpoint(fetched)
    assert fetched.name == "step_00000006"
    for name in ("model.safetensors", "optimizer.pt", "rng.pt", "data.pt", "manifest.json"):
        assert (fetched / name).read_bytes() == (manager.latest() / name).read_bytes(), name

    resumed = make_trainer(World(), make_settings(6), dropout=0.3)
    resumed.resume(fetch_checkpoint(f"{url}/step_00000005", tmp_path / "there"))
    resumed.fit()
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, weights_of(trainer)[name]), name


def test_an_outage_of_s3_is_told_of_and_survived(server, tmp_path):
    url = "s3://bucket/runs/mine"
    manager = CheckpointManager(tmp_path / "here", Retention(keep_last=2), remote_url=url)
    wait = Wait(server)
    trainer = make_trainer(World(), make_settings(12, save_every=2), callbacks=[wait], checkpoints=manager)
    assert trainer.fit().step == 12
    assert f"upload to {url} failed" in wait.notices[0]
    assert wait.notices[-1] == f"upload to {url} works again"
    fetched = fetch_checkpoint(url, tmp_path / "there")
    assert fetched.name == "step_00000012"
    saved = load_file(fetched / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in weights_of(trainer).items())


def test_a_bucket_that_does_not_exist_is_not_made_and_training_goes_on(server, tmp_path, monkeypatch):
    import boto3

    server.start()
    monkeypatch.setattr("trainkit.saving._LAST_UPLOAD_S", {False: 4.0, True: 4.0})
    wait = Wait(server)
    wait.on_step_end = lambda _record: None
    manager = CheckpointManager(tmp_path / "here", remote_url="s3://no-such-bucket/mine")
    assert make_trainer(World(), make_settings(3), callbacks=[wait], checkpoints=manager).fit().step == 3
    assert "no-such-bucket" in wait.notices[0]
    assert "bucket does not exist" in wait.notices[0], wait.notices
    assert [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]] == ["bucket"]
    assert os.listdir(tmp_path / "here")
