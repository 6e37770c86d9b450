"""Two hosts that train one model: each with its own ssh server, home and tmux, as two rented machines have."""

import pytest
from loopback import LONG, QUICK, free_port, wait_until

pytestmark = pytest.mark.remote


@pytest.fixture(scope="module")
def nodes(laptop, provisioned, make_host, base):
    """The second host, and the words and variables that name both."""
    second = make_host("b")
    config = base / "both"
    config.write_text(provisioned.stanza("node-a") + "\n" + second.stanza("node-b"))
    variables = {"PRIME_SSH_CONFIG": str(config), "PRIME_HOST": "nowhere"}
    laptop.just("bootstrap-remote", "nodes=node-a node-b", timeout=300, **variables)
    yield second, variables
    laptop.just("kill-train", "nodes=node-a node-b", "grace=1", **variables)


def test_two_hosts_train_one_model_and_stop_together(laptop, provisioned, nodes):
    second, variables = nodes
    both = ("nodes=node-a node-b", "gpus=1", "master=127.0.0.1")
    name = "--set logging.run_name=both"
    laptop.just("train", *both, f"port={free_port()}", f"extra={LONG} {name}", **variables)
    log = sorted(provisioned.root.glob("runs/.jobs/*/log"))[-1]
    assert wait_until(lambda: '"step": 2' in log.read_text(), 180), log.read_text()
    assert "tokens on 2 x cpu" in log.read_text()
    assert second.has_session(), "a tmux session of its own"
    assert "training is running already" in laptop.just("train", *both, f"extra={QUICK}", expect=1, **variables)

    laptop.just("kill-train", "nodes=node-a node-b", timeout=300, **variables)
    assert not provisioned.has_session()
    assert not second.has_session()
    assert "stopped by SIGTERM after step" in log.read_text()
    assert (provisioned.root / "runs/both/checkpoints/latest/manifest.json").is_file()
    assert not (second.root / "runs/both").exists(), "the run is kept on the first"
    codes = laptop.just("status-train", "nodes=node-a node-b", **variables)
    assert codes.count("state     exit") == 2


def test_when_one_host_cannot_begin_the_other_is_ended(laptop, provisioned, nodes):
    second, variables = nodes
    (second.root / "config/resources/train.toml").rename(second.root / "away")
    words = ("nodes=node-a node-b", "gpus=1", "master=127.0.0.1", f"extra={QUICK}")
    assert "no configuration" in laptop.just("train", *words, expect=1, **variables)
    assert not provisioned.has_session()
    (second.root / "away").rename(second.root / "config/resources/train.toml")
