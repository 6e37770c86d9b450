"""Words that try to be code, through every parameter, variable and file: they stay words."""

import os
import shutil

import pytest
from injections import INJECTIONS

pytestmark = pytest.mark.remote

PARAMETERS = [
    ("bootstrap-remote", "force={}"),
    ("data-remote", "dest=data/{}"),
    ("train", "config={}"),
    ("train", "extra=--set logging.run_name={}"),
    ("train", "gpus={}"),
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


@pytest.mark.parametrize(("recipe", "form"), PARAMETERS, ids=[f"{recipe} {form}" for recipe, form in PARAMETERS])
def test_no_parameter_is_run(laptop, provisioned, marks, recipe, form):
    """Not here, not by ssh, not on the host; what ends well and what is refused alike."""
    for number, injection in enumerate(INJECTIONS[:: 1 if recipe in ("fetch", "infer") else 3]):
        word = injection.format(mark=marks / f"{recipe}-{number}")
        laptop.just(recipe, form.format(word), expect=None, HF_ENDPOINT="http://127.0.0.1:9", FETCH_ATTEMPTS="1")
        assert not list(marks.iterdir()), (recipe, word)


REFUSED_HERE = [
    *((recipe, "nodes={}") for recipe in ("bootstrap-remote", "data-remote", "build-remote", "sync-env")),
    *((recipe, "nodes={}") for recipe in ("status-train", "wait-train", "kill-train")),
    *(
        (recipe, f"{option}={{}}")
        for recipe in ("train", "resume-train", "auto-train")
        for option in ("nodes", "master", "port", "gpus", "force")
    ),
]


@pytest.mark.parametrize(("recipe", "form"), REFUSED_HERE, ids=[f"{recipe} {form}" for recipe, form in REFUSED_HERE])
def test_no_parameter_with_a_form_of_its_own_is_run(laptop, provisioned, marks, recipe, form):
    """What cannot be right is refused before anything is asked of a host."""
    option, sessions = form.partition("=")[0], provisioned.log.count("Starting session")
    nodes = ["nodes=node-a node-a"] if option != "nodes" and recipe != "bootstrap-remote" else []
    for number, injection in enumerate(INJECTIONS[::3]):
        word = injection.format(mark=marks / f"{recipe}-{number}")
        output = laptop.just(recipe, *nodes, form.format(word), expect=2)
        assert f"error: {option}: " in output
        assert not list(marks.iterdir()), (recipe, word)
    assert provisioned.log.count("Starting session") == sessions


@pytest.mark.parametrize(
    "word",
    [
        "port=0",
        "port=65536",
        "port=1.5",
        "port=1e3",
        "gpus=²",
        "gpus=-1",
        "master=a b",
        "master=-x",
        "extra='",
        "force=2",
    ],
)
def test_an_option_of_a_job_that_cannot_be_right_is_told_before_minutes_of_installation(laptop, provisioned, word):
    output = laptop.just("auto-train", "nodes=node-a node-a", word, expect=2)
    assert f"error: {word.partition('=')[0]}: " in output
    assert "[1/4]" not in output


def test_numbers_mean_the_same_on_the_host(laptop, provisioned):
    """bash takes zeros in front for octal digits, and counts round into the negative."""
    assert "no training is running" in laptop.just("kill-train", "grace=08")
    job = provisioned.root / "runs/.jobs/newest"
    job.mkdir(parents=True)
    (job / "state").write_text("exit 0\n")
    (job / "log").write_text("".join(f"{line}\n" for line in range(20)))
    assert laptop.just("logs-train", "lines=010").split() == [str(line) for line in range(10, 20)]
    shutil.rmtree(job)
    output = laptop.just("kill-train", "grace=99999999999999999999", expect=2)
    assert "is not a number of at most 9 digits" in output


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


@pytest.fixture
def env_folder(laptop, provisioned):
    """env/ here; what a test puts there is gone afterwards, on the host too."""
    folders = [laptop.checkout / "env", provisioned.root / "env"]
    yield folders[0]
    for folder in folders:
        for path in folder.glob("*.env"):
            path.unlink()


def test_no_name_and_no_value_of_credentials_is_run(laptop, provisioned, marks, env_folder):
    """Neither when they are sent nor when a command on the host gets them."""
    words = [
        injection.format(mark=marks / f"sync-env-{n}").replace("\n", " ") for n, injection in enumerate(INJECTIONS)
    ]
    lines = {f"NAME_{number}={word.strip()}\n" for number, word in enumerate(words)}
    names = [f"{injection.format(mark='pwned')}.env" for injection in INJECTIONS]
    names += ["-rf.env", "a *.env", os.fsdecode(b"not utf-8 \xff.env")]
    for name in names:
        (env_folder / name).write_text("".join(lines))
    laptop.just("sync-env")
    for name in names:
        there = provisioned.root / "env" / name
        assert set(there.read_text().splitlines(keepends=True)) == lines
        assert there.stat().st_mode & 0o777 == 0o600
    assert lines <= set(laptop.just("infer", "command=env").splitlines(keepends=True)), "commands get them as they are"
    assert not list(marks.iterdir())
    for folder in (provisioned.home, provisioned.root, provisioned.root / "env", laptop.checkout, laptop.elsewhere):
        assert not list(folder.glob("pwned*"))


@pytest.mark.parametrize("name", ["$(touch {mark})", "A[$(touch {mark})]", "A;touch {mark};B", "-x", "", "1A"])
def test_a_name_that_is_none_is_refused_without_its_value(laptop, provisioned, marks, env_folder, name):
    (env_folder / "wandb.env").write_text(f"A=b\n{name.format(mark=marks / 'name')}=s3cr3t\n")
    output = laptop.just("sync-env", expect=2)
    assert "env/wandb.env, line 2: this is no NAME=value" in output
    assert not (provisioned.root / "env/wandb.env").exists()
    assert "s3cr3t" not in output
    assert not list(marks.iterdir())


def test_a_file_of_credentials_that_is_no_text_is_named(laptop, provisioned, env_folder):
    (env_folder / "wandb.env").write_bytes(b"WANDB_API_KEY=s3cr3t\xff\n")
    output = laptop.just("sync-env", expect=2)
    assert "env/wandb.env is not UTF-8 text" in output
    assert "s3cr3t" not in output
