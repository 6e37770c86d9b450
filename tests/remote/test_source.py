"""What travels to the host: the files as they are, and nothing else."""

import secrets
import shlex

import pytest

pytestmark = pytest.mark.remote
SECRET = secrets.token_hex(12)  # not written here: this file travels to the host

WATCHED = (("status", "--porcelain"), ("stash", "list"), ("log", "--oneline", "--all"))


def test_uncommitted_work_travels_and_ignored_files_and_keys_do_not(laptop, provisioned):
    root, checkout = provisioned.root, laptop.checkout
    new, odd = checkout / "new file.txt", checkout / "odd 'na\"me $(touch pwned);.txt"
    new.write_text("new")
    odd.write_text("odd")
    (checkout / "cli/train.py").write_text((checkout / "cli/train.py").read_text() + "# edited here\n")
    (checkout / "data").mkdir(exist_ok=True)
    (checkout / "data/ignored.txt").write_text("ignored")
    keys = [checkout / "env/wandb.env", checkout / "cli/other.env"]
    for path in keys:
        path.write_text(f"WANDB_API_KEY={SECRET}\n")
    laptop.git("add", "--force", "env/wandb.env")  # even a key that was added by mistake
    before = tuple(laptop.git(*what) for what in WATCHED)
    try:
        assert "with uncommitted changes" in laptop.just("bootstrap-remote")
        assert (root / "new file.txt").read_text() == "new"
        assert (root / odd.name).read_text() == "odd"
        assert "# edited here" in (root / "cli/train.py").read_text()
        assert not (root / "data/ignored.txt").exists()
        assert not (root / "env/wandb.env").exists()
        assert not (root / "cli/other.env").exists()
        after = tuple(laptop.git(*what) for what in WATCHED)
        assert after == before, "the local checkout is as it was"
        git = f"git -C {shlex.quote(str(root))}"
        everything = provisioned.shell(f"{git} cat-file --batch --batch-all-objects | grep -ac {SECRET}")
        assert everything.stdout.strip() == "0"
        assert provisioned.shell(f"{git} rev-list --count HEAD").stdout.strip() == "1", "no history travels"
        (root / "data/kept.txt").write_text("kept")
        new.unlink()
        laptop.just("bootstrap-remote")
        assert not (root / "new file.txt").exists(), "what is deleted here is deleted there"
        assert (root / "data/kept.txt").exists()
    finally:
        laptop.git("reset", "--quiet", "--hard")
        for path in (new, odd, *keys):
            path.unlink(missing_ok=True)
    assert not (root / "pwned").exists()


def test_a_second_time_nothing_is_sent(laptop, provisioned):
    laptop.just("bootstrap-remote")
    before = {path: path.stat().st_mtime_ns for path in provisioned.root.glob("*/*.py")}
    assert "source: up to date" in laptop.just("bootstrap-remote")
    assert {path: path.stat().st_mtime_ns for path in provisioned.root.glob("*/*.py")} == before


def test_edits_on_the_host_are_not_overwritten_unasked(laptop, provisioned):
    laptop.just("bootstrap-remote")
    edited, made = provisioned.root / "cli/train.py", provisioned.root / "made there.py"
    edited.write_text(edited.read_text() + "# by hand\n")
    made.write_text("by hand")
    output = laptop.just("bootstrap-remote", expect=1)
    assert "M cli/train.py" in output
    assert '?? "made there.py"' in output
    assert "just bootstrap-remote force=1" in output
    assert "# by hand" in edited.read_text()
    assert "by hand" in made.read_text()
    laptop.just("bootstrap-remote", "force=1")
    assert "# by hand" not in edited.read_text()
    assert not made.exists()


def test_an_update_that_was_cut_off_is_taken_up_again(laptop, provisioned):
    """Files half written by us are not edits of the user's."""
    laptop.just("bootstrap-remote")
    root = provisioned.root
    (root / ".git/transformerlm-updating").touch()
    (root / ".git/index.lock").touch()
    (root / "cli/train.py").write_text("half of it")
    (root / "cli/of_the_next_version.py").write_text("")
    laptop.just("bootstrap-remote")
    assert (root / "cli/train.py").read_text() == (laptop.checkout / "cli/train.py").read_text()
    assert not (root / "cli/of_the_next_version.py").exists()
    assert "source: up to date" in laptop.just("bootstrap-remote")


def test_the_source_is_not_changed_under_a_running_job(laptop, provisioned):
    provisioned.shell("tmux new-session -d -s transformerlm-train sleep 60")
    (laptop.checkout / "cli/new.py").write_text("")
    try:
        assert "under its feet" in laptop.just("bootstrap-remote", expect=1)
        assert not (provisioned.root / "cli/new.py").exists()
    finally:
        provisioned.shell("tmux kill-session -t =transformerlm-train")
        (laptop.checkout / "cli/new.py").unlink()


def test_repo_url_is_cloned_instead(laptop, make_host, provisioned, base):
    """Into a second root on the same host: the source comes from a git server, here a folder."""
    bare = base / "git server"
    laptop.git("clone", "--quiet", "--bare", ".", str(bare))
    root = {"REMOTE_ROOT": "~/from url", "REPO_URL": f"file://{bare}"}
    (laptop.checkout / "uncommitted.txt").write_text("")
    try:
        laptop.just("bootstrap-remote", timeout=300, **root)
        assert "source: up to date" in laptop.just("bootstrap-remote", **root)
    finally:
        (laptop.checkout / "uncommitted.txt").unlink()
    cloned = provisioned.home / "from url"
    assert (cloned / "cli/train.py").read_text() == (laptop.checkout / "cli/train.py").read_text()
    assert not (cloned / "uncommitted.txt").exists()
    kept = [cloned / "runs/a/metrics.jsonl", cloned / "data/tokens.bin", cloned / "env/wandb.env"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("kept")
    without = laptop.base / "without"
    laptop.git("clone", "--quiet", str(bare), str(without))
    laptop.git("-C", str(without), "rm", "--quiet", ".gitignore")
    laptop.git("-C", str(without), "commit", "--quiet", "--message", "a source that ignores nothing")
    laptop.git("-C", str(without), "push", "--quiet", "origin", "HEAD:refs/heads/without")
    laptop.just("bootstrap-remote", "force=1", REPO_REF="without", **root)
    assert not (cloned / ".gitignore").exists()
    assert [path.read_text() for path in kept] == ["kept"] * 3, "what the host keeps outlives any source"
    output = laptop.just("bootstrap-remote", expect=1, REMOTE_ROOT="~/from url", REPO_URL="file:///nowhere")
    assert "unset REPO_URL to send the local checkout" in output
    output = laptop.just("bootstrap-remote", expect=2, REPO_URL="https://name:key@example.com/a.git")
    assert "processes on the host would show" in output


def test_a_root_that_holds_something_else_is_left_alone(laptop, host):
    other = host.home / "photos"
    other.mkdir()
    (other / "me.jpg").write_text("me")
    output = laptop.just("bootstrap-remote", expect=1, REMOTE_ROOT="photos")
    assert "holds something else; set REMOTE_ROOT" in output
    assert [path.name for path in other.iterdir()] == ["me.jpg"]


def test_recipes_before_bootstrap_name_it(laptop, host):
    for recipe in ("build-remote", "data-remote", "train", "list-runs", "infer", "resume-train"):
        assert "run: just bootstrap-remote" in laptop.just(recipe, expect=1, REMOTE_ROOT="~/nothing here"), recipe
