"""Words that try to be code, connections that break, a full disk, two at once, a host on which one is nobody."""

import os
import shutil
import subprocess
import time

import pytest
from loopback import LONG, QUICK, find_tool, link_system, link_tools, wait_until

pytestmark = pytest.mark.remote

INJECTIONS = [
    "$(touch {mark})",
    "`touch {mark}`",
    "; touch {mark};",
    "x' ; touch {mark} ; '",
    'x" ; touch {mark} ; "',
    "a\ntouch {mark}\n",
    "| touch {mark} #",
    "#(touch {mark})",
    "-oProxyCommand=touch {mark}",
    "--rsync-path=touch {mark};rsync",
]
PARAMETERS = [
    ("bootstrap-remote", "force={}"),
    ("data-remote", "dest=data/{}"),
    ("train", "config={}"),
    ("train", "extra=--set logging.run_name={}"),
    ("train", "gpus={}"),
    ("train", "nodes={}"),
    ("train", "{}"),
    ("resume-train", "run={}"),
    ("infer", "command={}"),
    ("infer", "args={}"),
    ("logs-train", "lines={}"),
    ("wait-train", "every={}"),
    ("kill-train", "grace={}"),
    ("fetch", "any_file={}"),
    ("fetch-run", "run={}"),
]


@pytest.fixture(scope="module")
def marks(base):
    """A folder that stays empty while nothing that was data is run."""
    folder = base / "marks"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("recipe", "form"), PARAMETERS, ids=[f"{recipe} {form}" for recipe, form in PARAMETERS])
def test_no_parameter_is_run(laptop, provisioned, marks, recipe, form):
    """Not here, not by ssh, not on the host; what ends well and what is refused alike."""
    for number, injection in enumerate(INJECTIONS[:: 1 if recipe in ("fetch", "infer") else 3]):
        word = injection.format(mark=marks / f"{recipe}-{number}")
        laptop.just(recipe, form.format(word), expect=None, HF_ENDPOINT="http://127.0.0.1:9", FETCH_ATTEMPTS="1")
        assert not list(marks.iterdir()), (recipe, word)


@pytest.mark.parametrize("variable", ["PRIME_HOST", "REMOTE_ROOT", "REPO_URL", "REPO_REF", "CMD_INFER", "HF_ENDPOINT"])
def test_no_variable_is_run(laptop, provisioned, marks, variable):
    recipe = {"CMD_INFER": "infer", "HF_ENDPOINT": "data-remote"}.get(variable, "bootstrap-remote")
    for number, injection in enumerate(INJECTIONS):
        changes = {variable: injection.format(mark=marks / f"{variable}-{number}"), "FETCH_ATTEMPTS": "1"}
        if variable == "REPO_REF":
            changes["REPO_URL"] = "file:///nowhere"
        elif variable == "REMOTE_ROOT":
            recipe = "list-runs"  # each would be a root of its own to fill
        laptop.just(recipe, expect=None, **changes)
        assert not list(marks.iterdir()), changes
        assert not list(laptop.elsewhere.glob("*touch*"))


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("node-a", True),
        ("ssh node-a", True),
        ("-oProxyCommand=true", False),
        ("node-a -oProxyCommand=true", False),
        ("a b", False),
        ("root@1.2.3.4 -p 22 true", False),
    ],
)
def test_only_a_host_is_taken_for_one(laptop, provisioned, address, is_one):
    output = laptop.just("list-runs", expect=0 if is_one else 2, PRIME_HOST=address)
    assert is_one or "is no host; use an alias" in output


def test_an_address_with_a_port_is_a_host(laptop, provisioned):
    """As providers print it; the rest (the key) comes from the ssh configuration, here for all hosts."""
    config = laptop.base / "all hosts"
    config.write_text(provisioned.stanza("*").replace(f"  Port {provisioned.port}\n", "").replace("  User", "#"))
    for address in (f"root@127.0.0.1 -p {provisioned.port}", f"ssh -p {provisioned.port} root@127.0.0.1"):
        laptop.just(
            "list-runs",
            PRIME_HOST=address.replace("root", os.environ.get("USER") or "root"),
            PRIME_SSH_CONFIG=str(config),
        )


def test_a_host_that_cannot_be_reached_is_named(laptop, provisioned):
    for recipe in ("bootstrap-remote", "train", "fetch-run", "list-runs", "wait-train"):
        variables = {"PRIME_HOST": "nobody@127.0.0.1 -p 1", "REMOTE_RETRY_S": "0.1", "REMOTE_PATIENCE_S": "0.3"}
        output = laptop.just(recipe, expect=255, **variables)
        assert "nobody@127.0.0.1 cannot be reached" in output, recipe
        assert "PRIME_HOST names the host" in output


LONG_RECIPES = {
    "bootstrap-remote": (),
    "build-remote": (),
    "data-remote": (),
    "train": (f"extra={QUICK} --set logging.run_name=cut",),
    "infer": ("command=sleep 50.5",),
    "wait-train": (),
    "fetch": ("any_file=runs/cut off",),
    "fetch-run": ("run=cut off",),
    "list-runs": (),
    "status-train": (),
    "kill-train": (),
    "sync-env": (),
    "nvitop": (),
}


@pytest.mark.parametrize("recipe", LONG_RECIPES)
def test_a_lost_connection_is_told_and_the_recipe_can_be_run_again(laptop, provisioned, hub, recipe):
    """The connection breaks once it is there, at a moment of chance; then all must be as if it had not been."""
    big = provisioned.root / "runs/cut off/big"
    if recipe.startswith("fetch"):
        big.parent.mkdir(exist_ok=True)
        big.write_bytes(os.urandom(40_000_000))
        (big.parent / "config.toml").touch()
    key = laptop.checkout / "env/wandb.env"
    if recipe == "sync-env":
        key.write_text("A=b\n")
    if recipe == "wait-train":
        laptop.just("train", f"extra={LONG}")
    variables = {"HF_ENDPOINT": hub.url, "REMOTE_PATIENCE_S": "0"}
    process = laptop.start(recipe, *LONG_RECIPES[recipe], **variables)
    seen = provisioned.log.count("Starting session")
    assert wait_until(lambda: provisioned.log.count("Starting session") > seen or process.poll() is not None)
    time.sleep(0.15)
    provisioned.cut_connections()
    output = process.communicate(timeout=120)[0]
    assert process.returncode in (0, 255), output  # it may have been done already
    if process.returncode == 255:
        assert "the connection was lost" in output
    assert wait_until(lambda: "sleep 50.5" not in provisioned.shell("ps -eo args").stdout), "nothing is left running"
    if recipe == "wait-train":
        laptop.just("kill-train", "grace=1")
    elif recipe == "infer":
        laptop.just("infer", "command=true")
    elif recipe == "train":
        laptop.just("kill-train", "grace=1")
        shutil.rmtree(provisioned.root / "runs/cut", ignore_errors=True)
        laptop.just("train", *LONG_RECIPES["train"])
        laptop.just("wait-train", "every=0.2")
    elif recipe != "status-train":
        laptop.just(recipe, *LONG_RECIPES[recipe], **variables)
    if recipe.startswith("fetch"):
        there = laptop.elsewhere if recipe == "fetch" else laptop.checkout / "runs"
        assert (there / "cut off/big").read_bytes() == big.read_bytes()
        shutil.rmtree(there / "cut off")
        shutil.rmtree(big.parent)
    if recipe == "sync-env":
        assert (provisioned.root / "env/wandb.env").read_text() == "A=b\n"
        key.unlink()
        (provisioned.root / "env/wandb.env").unlink()


def test_of_two_launches_at_once_one_begins(laptop, provisioned):
    started = [laptop.start("train", f"extra={LONG}") for _ in range(3)]
    outputs = [process.communicate(timeout=180)[0] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], outputs
    assert sum("training is running already" in output for output in outputs) == 2
    assert "just attach-train shows it, just kill-train ends it" in "".join(outputs)
    laptop.just("kill-train", "grace=1")
    assert len([job for job in (provisioned.root / "runs/.jobs").iterdir() if not (job / "state").exists()]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_what_was_there_stays(laptop, provisioned, hub):
    disk = provisioned.home / "small disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not possible here: {mounted.stderr.decode().strip()}")
    root = {"REMOTE_ROOT": "small disk/root", "HF_ENDPOINT": hub.url}
    try:
        (disk / "filler").write_bytes(bytes(2_500_000))
        assert "No space left" in laptop.just("bootstrap-remote", expect=None, **root)
        subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
        (disk / "filler").unlink()
        laptop.just("bootstrap-remote", timeout=300, **root)  # as if nothing had been
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
        hub.files["/openai-community/gpt2/resolve/main/vocab.json"] = bytes(100_000)
        assert "the data did not come whole" in laptop.just("data-remote", expect=1, **root)
        (laptop.checkout / "env/wandb.env").write_text("WANDB_API_KEY=" + 9000 * "k" + "\n")
        assert "is its disk full?" in laptop.just("sync-env", expect=1, **root)
        assert not (disk / "root/env/wandb.env").exists(), "no half of a key"
        output = laptop.just("train", f"extra={QUICK}", expect=1, **root)
        assert "is the host's disk full?" in output
        (disk / "filler").unlink()
        laptop.just("train", f"extra={QUICK}", **root)
        laptop.just("wait-train", "every=0.2", **root)
    finally:
        (laptop.checkout / "env/wandb.env").unlink(missing_ok=True)
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def unprivileged(make_host, base, request):
    """A host on which one is nobody, without sudo; its tools are those that are named."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody without rights needs root first")

    def make(name: str, tools: list[str]):
        become_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        host = make_host(name, options=(f'ForceCommand exec {become_nobody} bash -c "$SSH_ORIGINAL_COMMAND"',))
        tool_folder = host.base / "tools"
        link_system(tool_folder, without=["sudo", "git", "tmux", "rsync", "just", "uv"])
        link_tools(tool_folder, tools)
        host.server.terminate()
        host.server.wait()
        host.environment |= {"PATH": str(tool_folder), "TMUX_TMPDIR": str(host.home)}
        host.environment |= {"UV_CACHE_DIR": str(host.home / "cache"), "UV_OFFLINE": "1"}  # nothing is downloaded
        host.environment["UV_PYTHON"] = "/usr/bin/python3"
        for path in (host.home, *host.home.rglob("*")):
            os.chown(path, 65534, 65534)
        host.start()
        config = base / f"{name} config"
        config.write_text(host.stanza(name))
        return host, {"PRIME_HOST": name, "PRIME_SSH_CONFIG": str(config)}

    return make


def test_what_is_missing_is_installed_by_name(laptop, make_host, base):
    """A package manager that puts what it is asked for on PATH stands in for Debian's: this machine has it all."""
    if os.geteuid() != 0:
        pytest.skip("installing packages needs root")
    host = make_host("new")
    for name in ("tmux", "rsync"):
        (host.base / "bin" / name).unlink()
    link_system(host.base / "bin", without=["tmux", "rsync", "apt-get"])
    apt = host.base / "bin/apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$*" >>{host.base}/asked\ncase "$*" in *install*tmux*rsync*) '
        f"ln -s {find_tool('tmux')} {find_tool('rsync')} {host.base}/bin/ ;; esac\n"
    )
    apt.chmod(0o755)
    host.server.terminate()
    host.server.wait()
    host.environment["PATH"] = str(host.base / "bin")
    host.start()
    (host.root).mkdir()
    (host.root / "in the way").touch()  # this ends after the tools
    config = base / "new config"
    config.write_text(host.stanza("new"))
    output = laptop.just("bootstrap-remote", expect=1, PRIME_HOST="new", PRIME_SSH_CONFIG=str(config))
    assert "installing tmux rsync" in output
    assert "holds something else" in output
    asked = (host.base / "asked").read_text().splitlines()
    assert [line.split("-qq ")[1] for line in asked] == ["update", "install tmux rsync"]


def test_without_root_or_sudo_one_is_told_what_to_install(laptop, unprivileged):
    _, variables = unprivileged("bare", ["git"])
    output = laptop.just("bootstrap-remote", expect=1, **variables)
    assert "this host lacks tmux rsync" in output
    assert "may not become root without a password" in output
    assert "apt-get install tmux rsync" in output


def test_without_root_or_sudo_nothing_is_missed_where_the_tools_are(laptop, unprivileged):
    """uv needs no root: it comes from the package index. What fails after it (no packages) names the next step."""
    host, variables = unprivileged("nobody", ["git", "tmux", "rsync"])
    output = laptop.just("bootstrap-remote", expect=1, **variables)
    if "uv could not be installed" in output:
        pytest.skip(f"no package index can be reached: {output[-200:]}")
    assert "installing uv" in output
    assert (host.home / ".local/bin/uv").exists(), output
    assert "nvitop could not be installed; training does not need it" in output
    assert (host.root / "cli/train.py").stat().st_uid == 65534
    assert "mend that and run: just build-remote" in output
