"""Renting, with the provider's real command line against an API on the loopback, and a real ssh server as the pod."""

import os
import shutil
import subprocess

import pytest
from loopback import QUICK
from provider import API_KEY

pytestmark = pytest.mark.remote


def test_a_pod_is_rented_for_a_price_that_was_shown_and_agreed_to(laptop, provider):
    output = laptop.just("pod-up", "gpu_type=H100_80GB", "name=mine", expect=2)
    assert "1 x H100 80GB at $2.25 per hour (lender, FI, stock available)" in output
    assert "$3.50" in output, "the next cheapest is shown too"
    assert "$1.00" not in output, "what may be taken away is not offered unasked"
    assert "$0.50" not in output, "nor what is not there"
    assert "Rent 1 x H100 80GB at $2.25 per hour" in output
    assert "yes=1 agrees" in output
    assert not provider.created
    assert "nothing was done" in answer_on_a_terminal(laptop, "n", "pod-up", "name=mine")
    assert not provider.created
    output = answer_on_a_terminal(laptop, "y", "pod-up", "name=mine", "disk=300")
    assert "pod pod1: $2.25 per hour from now on, until just pod-down pod=pod1" in output
    [asked] = provider.created
    wanted = {"cloudId": "cheap", "name": "mine", "diskSize": 300, "vcpus": 16, "memory": 128}
    assert {name: asked["pod"][name] for name in wanted} == wanted
    assert asked["pod"]["image"] == "ubuntu_22_cuda_12"
    laptop.just("pod-up", "spot=1", "yes=1")
    assert provider.created[-1]["pod"]["cloudId"] == "spot"
    assert "no such machine is offered now" in laptop.just("pod-up", "id=other", expect=2)


def answer_on_a_terminal(laptop, answer: str, *words: str) -> str:
    """Run a recipe that asks on a terminal; returns what it prints."""
    ours, theirs = os.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        laptop.command(*words),
        cwd=laptop.elsewhere,
        env=laptop.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    os.close(ours)
    os.close(theirs)
    return done.stdout


def test_a_rented_pod_is_called_prime_node(laptop, provider, host):
    assert "none is rented: just pod-up" in laptop.just("pod-config", expect=2)
    provider.add_pod("pod1", "mine")
    provider.ssh_after = 1
    assert "not yet reachable; again, with patience: wait=600" in laptop.just("pod-config", expect=1)
    provider.ssh_after = 2
    output = laptop.just("pod-config", "wait=30")
    assert "pod pod1 is PROVISIONING; waiting" in output
    assert "H100_80GB x1, $2.25 per hour; prime-node-0 in env/ssh_config" in output
    config = laptop.checkout / "env/ssh_config"
    assert config.stat().st_mode & 0o777 == 0o600
    assert "HostKeyAlias pod1-0" in config.read_text()
    assert "nvitop was started" in laptop.just("nvitop"), "PRIME_HOST and PRIME_SSH_CONFIG are not set: it is found"
    provider.add_pod("pod2", "other")
    assert "pod=ID: pod1 (mine, H100_80GB x1); pod2" in laptop.just("pod-config", expect=2)


def test_costs_are_told(laptop, provider):
    assert laptop.just("pod-cost") == "no pod is rented\n"
    provider.add_pod("pod1", "mine")
    provider.add_pod("pod2", "other")
    output = laptop.just("pod-cost")
    assert "pod1  mine  H100_80GB x1  ACTIVE" in output
    assert "1.5 h, $2.25 per hour, about $3." in output
    assert "in all $4.50 per hour" in output


def test_a_pod_is_kept_while_it_works_or_holds_what_is_not_here(laptop, provider, provisioned):
    """Whatever PRIME_HOST says: the pod itself is asked."""
    provider.add_pod("pod1", "mine")
    provisioned.shell("tmux new-session -d -s transformerlm-train sleep 60")
    assert "training is running on prime-node-0" in laptop.just("pod-down", "yes=1", expect=1, PRIME_HOST="nowhere")
    provisioned.shell("tmux kill-session -t =transformerlm-train")
    run = provisioned.root / "runs/precious 'run'"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text("a = 1\n")
    assert "precious 'run'" in laptop.just("pod-down", "yes=1", expect=1)
    laptop.just("pod-config")
    for other in provisioned.root.glob("runs/*/"):
        if not other.is_symlink() and (other / "config.toml").exists():
            laptop.just("fetch-run", f"run={other.name}")
        elif not other.is_symlink():
            shutil.rmtree(other)
    (run / "config.toml").write_text("a = 2, and more\n")
    output = laptop.just("pod-down", "yes=1", expect=1)
    assert "not fetched, or not as they are there now: precious 'run'." in output
    laptop.just("fetch-run", "run=precious 'run'")
    assert "There is no terminal to ask on" in laptop.just("pod-down", expect=2)
    assert list(provider.pods) == ["pod1"]
    assert "pod pod1 was given back" in laptop.just("pod-down", "yes=1")
    assert not provider.pods
    assert not (laptop.checkout / "env/ssh_config").exists()


def test_a_pod_that_cannot_be_asked_is_kept_unless_forced(laptop, provider):
    provider.add_pod("pod1", "mine")
    provider.address = "root@127.0.0.1 -p 1"
    assert "cannot be asked what is on it" in laptop.just("pod-down", "yes=1", expect=1)
    assert provider.pods
    laptop.just("pod-down", "yes=1", "force=1")
    assert not provider.pods


def test_train_then_down_brings_everything_home_first(laptop, provider, provisioned, hub):
    provider.add_pod("pod1", "mine")
    words = ("yes=1", "every=0.2", f"extra={QUICK} --set logging.run_name=last")
    output = laptop.just("train-then-down", *words, timeout=300, HF_ENDPOINT=hub.url)
    assert "pod pod1 was given back" in output
    assert not provider.pods
    assert (laptop.checkout / "runs/last/checkpoints/latest/manifest.json").is_file()
    assert list((laptop.checkout / "runs/.jobs").glob("*/log")), "the jobs' logs too"
    everything = provisioned.shell(
        f"grep -rIl {API_KEY} ~ --exclude-dir .venv; cat /proc/*/environ | grep -ac {API_KEY}"
    )
    assert API_KEY not in everything.stdout
    assert not [line for line in everything.stdout.splitlines() if line.startswith("/")], "the key stayed here"


def test_a_pod_is_not_given_back_when_training_could_not_begin(laptop, provider, provisioned, hub):
    provider.add_pod("pod1", "mine")
    words = ("yes=1", "extra=--set training.batch_sise=1")
    output = laptop.just("train-then-down", *words, expect=2, timeout=300, HF_ENDPOINT=hub.url)
    assert "unknown setting" in output
    assert "pod pod1 was NOT given back and goes on costing" in output
    assert provider.pods


def test_without_prime_it_is_named(laptop, provider):
    assert "uv tool install prime" in laptop.just("pod-cost", expect=2, PATH=os.environ["PATH"])


def test_what_the_provider_refuses_is_passed_on(laptop, provider):
    output = laptop.just("pod-up", "yes=1", expect=None, PRIME_API_KEY="wrong")
    assert "prime: Error fetching availability page 1: API key unauthorized" in output
    assert not provider.created
