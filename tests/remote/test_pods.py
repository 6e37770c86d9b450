"""Renting, with the provider's real command line against an API on the loopback, and a real ssh server as the pod."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_server import FileServer
from loopback import QUICK, find_tool

pytestmark = pytest.mark.remote
API_KEY = f"pit_{secrets.token_hex(12)}"  # not written here: this file travels to the host
SIZES = {"step": None, "pricePerUnit": None, "additionalInfo": None, "defaultIncludedInPrice": True}


def make_offer(cloud_id: str, price: float, **changes: object) -> dict:
    """Return a machine as the provider's API offers it."""
    offer = {
        "cloudId": cloud_id,
        "gpuType": "H100_80GB",
        "socket": "SXM5",
        "provider": "lender",
        "dataCenter": "north-1",
        "country": "FI",
        "gpuCount": 1,
        "gpuMemory": 80,
        "disk": {**SIZES, "minCount": 100, "defaultCount": 200, "maxCount": 1000},
        "vcpu": {**SIZES, "minCount": 8, "defaultCount": 16, "maxCount": 32},
        "memory": {**SIZES, "minCount": 64, "defaultCount": 128, "maxCount": 256},
        "internetSpeed": None,
        "interconnect": None,
        "interconnectType": None,
        "provisioningTime": None,
        "stockStatus": "Available",
        "security": "secure_cloud",
        "prices": {"onDemand": price, "communityPrice": None, "isVariable": False, "currency": "USD"},
        "images": ["ubuntu_22_cuda_12", "cuda_12_1_pytorch_2_2"],
        "isSpot": False,
        "prepaidTime": None,
    }
    return {**offer, **changes}


class Provider(FileServer):
    """The provider's API: what it offers, what is rented, what was asked of it."""

    def __init__(self, address: str):
        self.address = address
        self.pods: dict[str, dict] = {}
        self.created: list[dict] = []
        self.ssh_after = 0
        """How many questions about a pod's state are answered with: not yet."""
        self.offers = [
            make_offer("dear", 3.5),
            make_offer("cheap", 2.25),
            make_offer("spot", 1.0, isSpot=True),
            make_offer("gone", 0.5, stockStatus="Unavailable"),
        ]
        super().__init__(
            dynamic={
                "/api/v1/availability/gpus": self._answer_offers,
                "/api/v1/availability/multi-node": lambda *_: self._send_json({"items": [], "totalCount": 0}),
                "/api/v1/pods": self._answer_pods,
                "/api/v1/pods/status": self._answer_status,
            }
        )

    def _send_json(self, value: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def _answer_offers(self, request, _body):
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return self._send_json({"detail": "no"}, 401)
        return self._send_json({"items": self.offers, "totalCount": len(self.offers)})

    def _answer_pods(self, request, body):
        if request.method == "POST":
            asked = json.loads(body)
            self.created.append(asked)
            return self._send_json(self.add_pod(f"pod{len(self.created)}", asked["pod"]["name"]))
        return self._send_json(
            {"total_count": len(self.pods), "offset": 0, "limit": 100, "data": [*self.pods.values()]}
        )

    def add_pod(self, pod: str, name: str) -> dict:
        """Rent one out, since an hour and a half."""
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5400))
        common = {"providerType": "lender", "status": "ACTIVE", "priceHr": 2.25, "ip": "127.0.0.1"}
        self.pods[pod] = {
            **common,
            "id": pod,
            "name": name,
            "gpuName": "H100_80GB",
            "gpuCount": 1,
            "type": "HOSTED",
            "createdAt": began,
            "installationStatus": "FINISHED",
            "resources": None,
            "socket": None,
        }

        def answer(request, _body):
            if request.method == "DELETE":
                del self.pods[pod]
                return self._send_json({})
            return self._send_json(self.pods[pod])

        self.dynamic[f"/api/v1/pods/{pod}"] = answer
        return self.pods[pod]

    def _answer_status(self, _request, _body):
        self.ssh_after -= 1
        address = None if self.ssh_after >= 0 else self.address
        states = [
            {
                "podId": pod,
                "providerType": "lender",
                "status": "PROVISIONING" if address is None else "ACTIVE",
                "sshConnection": address,
                "priceHr": 2.25,
                "ip": "127.0.0.1",
            }
            for pod in self.pods
        ]
        return self._send_json({"data": states})


@pytest.fixture(scope="module")
def prime(base) -> str:
    """The folder of the provider's own command line, installed for these tests."""
    if (path := os.environ.get("TEST_PRIME")) or (path := shutil.which("prime")):
        return str(Path(path).parent)
    uv, folder = find_tool("uv"), base / "prime"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), "prime"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"prime cannot be installed: {done.stderr[-300:]}")
    return str(folder / "bin")


@pytest.fixture
def provider(laptop, host, prime, monkeypatch):
    """The API, and a laptop whose prime asks it; pods are the loopback host. PRIME_HOST names no pod at all."""
    user = host.stanza("x").split("User ")[1].split("\n")[0]
    provider = Provider(f"{user}@127.0.0.1 -p {host.port}")
    settings = laptop.home / ".prime/config.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"ssh_key_path": str(host.base / "user_key")}))
    changes = {
        "PATH": f"{prime}:{laptop.environment['PATH']}",
        "PRIME_API_BASE_URL": provider.url,
        "PRIME_API_KEY": API_KEY,
        "PRIME_DISABLE_VERSION_CHECK": "1",
        "PRIME_HOST": "",
        "PRIME_SSH_CONFIG": "",
        "REMOTE_RETRY_S": "0.1",
    }
    for name, value in changes.items():
        monkeypatch.setitem(laptop.environment, name, value)
    yield provider
    provider.close()
    (laptop.checkout / "env/ssh_config").unlink(missing_ok=True)
    shutil.rmtree(laptop.checkout / "runs", ignore_errors=True)


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
