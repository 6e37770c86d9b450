"""scripts/remote, as far as it needs no host: how words are read, what is refused, what env files say."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "remote"))

import environment
import hosts
import pods
from arguments import UsageError, parse_arguments

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("config", "extra", "gpus")


@pytest.mark.parametrize(
    "words",
    [
        ["config=a b.toml", "extra=--set a=1"],
        ["--config", "a b.toml", "--extra=--set a=1"],
        ["a b.toml", "extra=--set a=1"],
    ],
)
def test_options_have_three_forms(words):
    assert parse_arguments(words, NAMES, False).options == {"config": "a b.toml", "extra": "--set a=1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["confg=x"], "did you mean config=?"),
        (["--gpu", "2"], "did you mean gpus=?"),
        (["--config"], "needs a value"),
        (["config=a", "config=b"], "given twice"),
        (["a", "b", "c", "d"], 'unknown argument "d"'),
        (["--", "x"], "unknown argument"),
    ],
)
def test_what_is_not_understood_is_refused(words, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        parse_arguments(words, NAMES, False)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_arrives_as_it_is(text):
    assert parse_arguments([f"extra={text}"], NAMES, False).options["extra"] == text
    assert parse_arguments(["--", text, text], NAMES, True).words == [text, text]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=40))
def test_a_shell_takes_no_argument_for_code(text):
    """The script that is sent holds each argument so that bash gives back the same characters."""
    host = hosts.Host("a", "", "~", "")
    script = host._make_script("show", (text, text), "", False).split("\n")
    tail = "\n".join(script[next(i for i in range(len(script) - 1, -1, -1) if script[i].startswith("{ show")) :])
    program = 'show() { printf "%s\\0" "$@"; }\n' + tail
    done = subprocess.run(["bash", "-s"], input=program.encode(), capture_output=True)
    assert done.stdout.decode().split("\0")[:-1] == [text, text]


def test_values_are_split_as_a_shell_would_and_nothing_is_expanded():
    arguments = parse_arguments(["""extra=--set 'a=["x y"]' $HOME *"""], NAMES, False)
    assert arguments.split("extra") == ["--set", 'a=["x y"]', "$HOME", "*"]
    with pytest.raises(UsageError, match="extra: No closing quotation"):
        parse_arguments(["extra=it's"], NAMES, False).split("extra")


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("gpu", "gpu", ""),
        ("root@1.2.3.4", "root@1.2.3.4", ""),
        ("root@1.2.3.4:2222", "root@1.2.3.4", "2222"),
        ("ssh root@1.2.3.4 -p 2222", "root@1.2.3.4", "2222"),
        ("ssh -p 22 ubuntu@host.example", "ubuntu@host.example", "22"),
    ],
)
def test_an_address_is_read_as_providers_show_it(text, address, port):
    host = hosts.make_host(text, "~/x", "config")
    assert (host.address, host.port) == (address, port)


@pytest.mark.parametrize(
    "text", ["", " ", "-oProxyCommand=x", "a b", "a -i key", "a;b", "$(a)", "a:22 -p 23", "a\n-oX"]
)
def test_what_ssh_could_take_for_an_option_is_refused(text):
    with pytest.raises(UsageError, match="PRIME_HOST"):
        hosts.make_host(text, "~/x", "config")


def test_env_files_are_data(tmp_path):
    path = tmp_path / "wandb.env"
    path.write_text("# key\nexport A='x y'\r\nB=$(touch pwned)\n\nC=\"q\"\nD='\n E=a=b \n")
    assert environment.normalize(path) == "A=x y\nB=$(touch pwned)\nC=q\nD='\nE=a=b\n"


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")
def test_all_nodes_of_a_pod_get_an_alias_and_a_host_key_of_their_own(tmp_path, monkeypatch):
    """ssh itself says what it reads from the file; folders may have any name."""
    folder = tmp_path / 'it\'s 100% "mine"'
    (folder / "env").mkdir(parents=True)
    monkeypatch.setattr(pods, "POD_CONFIG", folder / "env/ssh_config")
    monkeypatch.setattr(pods, "KNOWN_HOSTS", folder / "env/known_hosts")
    monkeypatch.setattr(pods, "PRIME_SETTINGS", folder / "none.json")
    assert pods.write_ssh_config("pod9", "root@1.2.3.4 -p 2201, ubuntu@5.6.7.8") == ["prime-node-0", "prime-node-1"]
    expected = {
        "prime-node": {"hostname 1.2.3.4", "port 2201", "user root", "hostkeyalias pod9-0"},
        "prime-node-0": {"hostname 1.2.3.4", "port 2201"},
        "prime-node-1": {"hostname 5.6.7.8", "port 22", "user ubuntu", "hostkeyalias pod9-1"},
    }
    for alias, lines in expected.items():
        command = ["ssh", "-G", "-F", str(folder / "env/ssh_config"), alias]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert lines <= set(done.stdout.splitlines())
    assert (folder / "env/ssh_config").stat().st_mode & 0o777 == 0o600
    with pytest.raises(hosts.RemoteError, match="cannot read"):
        pods.write_ssh_config("pod9", "root@1.2.3.4 -oProxyCommand=x")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shell_scripts_are_clean():
    scripts = [*SCRIPTS.glob("*.sh"), *(SCRIPTS / "remote").glob("*.sh"), SCRIPTS / "remote/ssh"]
    done = subprocess.run(["shellcheck", "--external-sources", *map(str, scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_local_half_needs_nothing_newer_than_python_3_9():
    """Every file compiles under 3.9's grammar, and imports only the standard library and its neighbours."""
    neighbours = {path.stem for path in (SCRIPTS / "remote").glob("*.py")}
    for path in (SCRIPTS / "remote").glob("*.py"):
        if path.stem == "check_wandb":  # runs on the host, in the project's own environment
            continue
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names | neighbours, (path.name, name)
