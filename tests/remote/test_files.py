"""What comes back from the host: files, folders, runs; and commands that are run there."""

import pytest
from loopback import link_system, link_tools

pytestmark = pytest.mark.remote
ODD = "odd 'n\"a $(touch pwned) * ü;"


@pytest.fixture
def odd_run(provisioned):
    """A run with a name that is data, and a file deep inside."""
    deep = provisioned.root / "runs" / ODD / "deep er"
    deep.mkdir(parents=True, exist_ok=True)
    (deep / "f 1").write_text("1")
    (provisioned.root / "runs" / ODD / "config.toml").write_text("")
    return provisioned.root / "runs" / ODD


@pytest.mark.parametrize("has_rsync", [True, False], ids=["rsync", "tar"])
def test_fetch_copies_into_the_folder_where_it_was_called(laptop, provisioned, odd_run, tmp_path, has_rsync):
    """macOS brings an rsync that cannot send paths as data: then tar does it."""
    variables = {}
    if not has_rsync:
        link_system(tmp_path / "bin", without=["rsync", "just"])
        link_tools(tmp_path / "bin", ["just"])
        variables["PATH"] = str(tmp_path / "bin")
    for _ in range(2):  # a second time it is not put inside the first
        laptop.just("fetch", f"any_file=runs/{ODD}", **variables)
        found = sorted(str(path.relative_to(laptop.elsewhere)) for path in laptop.elsewhere.rglob("f 1"))
        assert found == [f"{ODD}/deep er/f 1"]
    laptop.just("fetch", f"runs/{ODD}/deep er/f 1", **variables)
    assert (laptop.elsewhere / "f 1").read_text() == "1"
    (odd_run / "deep er/f 1").write_text("22")
    laptop.just("fetch", f"any_file=runs/{ODD}/deep er/f 1", **variables)
    assert (laptop.elsewhere / "f 1").read_text() == "22", "what changed comes again"
    assert "there is no" in laptop.just("fetch", "any_file=nope $(touch pwned)", expect=1, **variables)
    for path in ("../outside", "/etc/passwd", "."):
        assert "no path inside REMOTE_ROOT" in laptop.just("fetch", f"any_file={path}", expect=2, **variables)
    laptop.just("fetch", expect=2)
    for path in (laptop.elsewhere / ODD / "deep er/f 1", laptop.elsewhere / "f 1"):
        path.unlink()


def test_a_run_is_fetched_into_the_local_runs_folder(laptop, provisioned, odd_run):
    assert ODD in laptop.just("list-runs")
    (provisioned.root / "runs/latest").unlink(missing_ok=True)
    (provisioned.root / "runs/latest").symlink_to(ODD)
    laptop.just("fetch-run")
    assert (laptop.checkout / "runs" / ODD / "deep er/f 1").is_file()
    (provisioned.root / "runs/latest").unlink()
    assert "no run on this host has a checkpoint yet" in laptop.just("fetch-run", expect=1)
    assert 'there is no run "other"' in laptop.just("fetch-run", "run=other", expect=1)
    assert "is no name of a run" in laptop.just("fetch-run", "run=../env", expect=2)


def test_a_command_is_run_word_by_word(laptop, provisioned):
    show = "import sys, os; print(sys.argv[1:], os.path.basename(os.getcwd()))"
    output = laptop.just(
        "infer", f'command=python3 -c "{show}"', "args=--prompt \"a 'b' $(touch pwned)\"", "--", "x  y"
    )
    assert """['--prompt', "a 'b' $(touch pwned)", 'x  y']""" in output
    assert provisioned.root.name in output, "in the root folder"
    laptop.just("infer", "command=bash -c 'exit 7'", expect=7)
    assert laptop.just("infer", CMD_INFER="echo from the environment").strip() == "from the environment"
    assert "No closing quotation" in laptop.just("infer", "command=echo 'a", expect=2)
    assert not (provisioned.root / "pwned").exists()


def test_the_default_command_is_the_benchmark(laptop, provisioned):
    output = laptop.just("infer", "args=--print-config")
    assert "[benchmark]" in output
    assert laptop.just("infer", "uv run transformerlm-infer --help").startswith("usage: transformerlm-infer")


def test_gpus_are_watched(laptop, provisioned):
    assert "nvitop was started: -1" in laptop.just("nvitop")


def test_every_recipe_is_documented(laptop):
    listing = laptop.just("--list")
    recipes = (laptop.checkout / "scripts/remote/__main__.py").read_text().split("RECIPES = {")[1].split("}")[0]
    names = [line.split('"')[1] for line in recipes.splitlines() if '": Recipe(' in line]
    assert len(names) > 20
    for name in names:
        assert [line for line in listing.splitlines() if line.strip().startswith(f"{name} ") and " # " in line], name


def test_data_is_fetched_once_and_its_absence_told(laptop, provisioned, hub):
    laptop.just("data-remote", "dest=data/my data", HF_ENDPOINT=hub.url)
    assert (provisioned.root / "data/my data/merges_gpt2.txt").read_bytes() == b"merges"
    asked = len(hub.requests)
    assert "there already" in laptop.just("data-remote", "dest=data/my data", HF_ENDPOINT=hub.url)
    assert len(hub.requests) == asked
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "FETCH_ATTEMPTS": "1"}
    assert "Run just data-remote again" in laptop.just("data-remote", "dest=data/x", expect=1, **nowhere)


def test_a_build_obeys_the_lock_while_it_fits(laptop, provisioned):
    assert "Checked" in laptop.just("build-remote")
    lock = provisioned.root / "uv.lock"
    before = lock.read_bytes()
    lock.write_bytes(before.replace(b'name = "tqdm"', b'name = "other"'))
    laptop.just("build-remote", timeout=300)
    assert b'name = "tqdm"' in lock.read_bytes(), "a lock that does not fit is made again"
    (provisioned.root / "pyproject.toml").rename(provisioned.root / "away")
    assert "is not complete; run: just bootstrap-remote" in laptop.just("build-remote", expect=1)
    (provisioned.root / "away").rename(provisioned.root / "pyproject.toml")
