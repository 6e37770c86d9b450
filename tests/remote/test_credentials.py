"""Keys: on standard input only, in files that only their owner reads, asked about before training starts."""

import base64
import json
import secrets
import threading
import time

import pytest
from file_server import FileServer
from loopback import QUICK, command_lines

pytestmark = pytest.mark.remote
SECRET = secrets.token_hex(12)  # not written here: this file travels to the host
KEY = f"{SECRET} q'uote\"d $HOME $(touch pwned)"
WANDB = f'{QUICK} --set \'logging.backends=["console","wandb"]\''


@pytest.fixture
def wandb_server():
    """Answers who one is, like wandb does; KEY is the only key it knows."""
    expected = f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}"

    def answer(request, _body):
        if request.headers.get("Authorization") != expected:
            return 401, {}, b"{}"
        return 200, {}, json.dumps({"data": {"viewer": {"username": "ada"}}}).encode()

    server = FileServer(dynamic={"/graphql": answer})
    yield server
    server.close()


@pytest.fixture
def write_env(laptop, provisioned):
    """Write env/wandb.env here; it is gone afterwards, on the host too."""
    path = laptop.checkout / "env/wandb.env"

    def write(**values: str) -> None:
        path.write_text("".join(f"{name}={value}\r\n" for name, value in values.items()))

    yield write
    path.unlink(missing_ok=True)
    (provisioned.root / "env/wandb.env").unlink(missing_ok=True)


class Watcher:
    """Looks at the command lines of all processes all the time."""

    def __init__(self):
        self.seen: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()

    def _watch(self):
        while not self._stopped.is_set():
            self.seen.update(command_lines())
            time.sleep(0.005)


def test_a_key_is_never_on_a_command_line_in_a_log_or_in_a_run(laptop, provisioned, write_env):
    write_env(WANDB_API_KEY=f"'{KEY}'", WANDB_MODE="offline")
    with Watcher() as watcher:
        output = laptop.just("sync-env")
        target = provisioned.root / "env/wandb.env"
        assert target.stat().st_mode & 0o777 == 0o600
        assert (provisioned.root / "env").stat().st_mode & 0o777 == 0o700
        assert f"WANDB_API_KEY={KEY}\n" in target.read_text(), "as it is, without the carriage return"
        assert (laptop.checkout / "env/wandb.env").stat().st_mode & 0o777 == 0o600
        words = laptop.just("infer", "command=printenv WANDB_API_KEY")
        assert words.strip() == KEY, "commands on the host get it, nothing in it was expanded or run"
        output += laptop.just("train", f"extra={WANDB} --set logging.run_name=with_wandb")
        output += laptop.just("wait-train", "every=0.2")
    assert list(provisioned.root.glob("runs/with_wandb/wandb/offline-run-*")), "wandb was at work"
    assert any("scripts/remote train" in line for line in watcher.seen), "the watcher saw the recipes"
    assert any("cli.train" in line for line in watcher.seen), "and the job"
    assert not [line for line in watcher.seen if SECRET in line]
    assert SECRET not in output
    kept = [path for path in provisioned.root.rglob("*") if path.is_file() and ".venv" not in path.parts]
    holding = [path.name for path in kept if SECRET.encode() in path.read_bytes()]
    assert holding == ["wandb.env"]
    assert SECRET not in provisioned.shell("tmux show-environment -g 2>/dev/null; cat ../sshd.log").stdout
    assert not (provisioned.root / "pwned").exists()


def test_credentials_are_asked_about_before_training_starts(laptop, provisioned, write_env, wandb_server):
    output = laptop.just("train", f"extra={WANDB}", expect=1)
    assert "the host has no key" in output
    assert "just sync-env" in output
    write_env(WANDB_API_KEY="wrong", WANDB_BASE_URL=wandb_server.url)
    laptop.just("sync-env")
    assert f"{wandb_server.url} refuses the key" in laptop.just("train", f"extra={WANDB}", expect=1)
    assert not provisioned.has_session()
    write_env(WANDB_API_KEY=KEY, WANDB_BASE_URL=wandb_server.url)
    laptop.just("sync-env")
    assert "wandb: logged in as ada" in laptop.just("train", f"extra={WANDB}")
    laptop.just("kill-train", "grace=1")
    write_env(WANDB_API_KEY="wrong", WANDB_BASE_URL=wandb_server.url)
    laptop.just("sync-env")
    laptop.just("train", f"extra={QUICK}")  # logs to no wandb: nobody asks about a key that is not needed
    laptop.just("wait-train", "every=0.2")


def test_a_missing_or_broken_file_is_told_without_its_content(laptop, provisioned, write_env):
    assert "copy env/wandb.env.example" in laptop.just("sync-env", expect=2)
    (laptop.checkout / "env/wandb.env").write_text("# fine\nWANDB_API_KEY: s3cr3t\n")
    output = laptop.just("sync-env", expect=2)
    assert "env/wandb.env, line 2: this is no NAME=value" in output
    assert "s3cr3t" not in output
