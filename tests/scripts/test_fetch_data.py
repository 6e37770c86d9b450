"""scripts/fetch_data.sh against a real server that cuts connections, refuses, and serves wrong bytes."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from file_server import FileServer

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "fetch_data.sh"
TOKENIZER = [f"{part}_simplestories_8k.{kind}" for part, kind in (("vocab", "json"), ("merges", "txt"))]
TOKENIZER.append("special_tokens_simplestories_8k.json")
TOKENS = [f"simplestories_{split}_text_document.{kind}" for split in ("train", "validation") for kind in ("bin", "idx")]
HUB = {"vocab_gpt2.json": "vocab.json", "merges_gpt2.txt": "merges.txt"}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def make_bytes(name: str, size: int = 300_000) -> bytes:
    return random.Random(name).randbytes(size)


@pytest.fixture
def server():
    server = FileServer()
    for name, source in HUB.items():
        server.files[f"/openai-community/gpt2/resolve/main/{source}"] = make_bytes(name)
    for name in (*TOKENIZER, *TOKENS):
        server.files[f"/data/{name}"] = make_bytes(name)
    yield server
    server.close()


@pytest.fixture
def fetch(server, tmp_path):
    def run(*arguments: str, base: bool = True, **environment: str) -> subprocess.CompletedProcess:
        variables = {"HF_ENDPOINT": server.url, "FETCH_WAIT_S": "0", "PATH": os.environ["PATH"]}
        variables |= {"TRANSFORMERLM_DATA_URL": f"{server.url}/data/"} if base else {}
        command = ["bash", str(SCRIPT), *(arguments or (str(tmp_path / "out"),))]
        return subprocess.run(command, env={**variables, **environment}, capture_output=True, text=True, timeout=60)

    return run


def list_hashes(server) -> bytes:
    names = [*TOKENIZER, *TOKENS]
    return "".join(f"{hashlib.sha256(server.files[f'/data/{n}']).hexdigest()}  {n}\n" for n in names).encode()


def assert_whole(folder: Path, names=(*HUB, *TOKENIZER, *TOKENS)) -> None:
    for name in names:
        assert (folder / name).read_bytes() == make_bytes(name), name
    assert not list(folder.glob(".*.partial"))


def test_everything_is_fetched_once_and_then_left_alone(fetch, server, tmp_path):
    server.files["/data/SHA256SUMS"] = list_hashes(server)
    first = fetch()
    assert first.returncode == 0, first.stderr
    assert_whole(tmp_path / "out")
    assert (tmp_path / "out/special_tokens_gpt2.json").is_file()
    server.requests.clear()
    second = fetch()
    assert second.returncode == 0
    assert second.stderr.count("there already") == 9
    assert {request.path for request in server.requests} == {"/data/SHA256SUMS"}


def test_what_is_cut_off_is_continued_where_it_stopped(fetch, server, tmp_path):
    server.cut_after = [100_000, 150_000]  # of the first file: GPT-2's vocabulary
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("vocab.json: cut off") == 2
    assert_whole(tmp_path / "out")
    ranges = [request.headers.get("Range") for request in server.gets("/openai-community/gpt2/resolve/main/vocab.json")]
    assert ranges == [None, "bytes=100000-", "bytes=250000-"]


def test_a_run_that_gave_up_is_continued_by_the_next(fetch, server, tmp_path):
    server.cut_after = [100_000, 0]
    first = fetch(FETCH_ATTEMPTS="2")
    assert first.returncode == 1
    assert "cut off 2 times; run this again, it goes on where it stopped" in first.stderr
    assert not (tmp_path / "out/vocab_gpt2.json").exists(), "a file has its name only when it is whole"
    second = fetch()
    assert second.returncode == 0, second.stderr
    assert_whole(tmp_path / "out")
    assert server.gets("/openai-community/gpt2/resolve/main/vocab.json")[-1].headers["Range"] == "bytes=100000-"


def test_a_server_without_ranges_is_asked_for_the_whole_again(fetch, server, tmp_path):
    server.has_ranges = False
    server.cut_after = [100_000]
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path / "out")


def test_a_server_that_is_busy_is_asked_again(fetch, server, tmp_path):
    server.refusals = [503, 429, 500]
    result = fetch(base=False)
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path / "out", HUB)


def test_a_wrong_checksum_is_refused_and_the_file_thrown_away(fetch, server, tmp_path):
    server.files["/data/SHA256SUMS"] = list_hashes(server)
    server.files[f"/data/{TOKENS[0]}"] = b"something else"
    result = fetch()
    assert result.returncode == 1
    assert f"{TOKENS[0]}: its SHA-256 is {hashlib.sha256(b'something else').hexdigest()}" in result.stderr
    assert "it was thrown away" in result.stderr
    assert not (tmp_path / "out" / TOKENS[0]).exists()
    assert not list((tmp_path / "out").glob(".*.partial"))
    server.files[f"/data/{TOKENS[0]}"] = make_bytes(TOKENS[0])
    assert fetch().returncode == 0
    assert_whole(tmp_path / "out")


def test_a_file_that_was_damaged_here_is_fetched_again(fetch, server, tmp_path):
    server.files["/data/SHA256SUMS"] = list_hashes(server)
    assert fetch().returncode == 0
    (tmp_path / "out" / TOKENS[1]).write_bytes(b"damaged")
    result = fetch()
    assert result.returncode == 0
    assert "fetching it again" in result.stderr
    assert_whole(tmp_path / "out")


def test_tokens_are_optional_and_the_tokenizer_is_not(fetch, server, tmp_path):
    for name in TOKENS:
        del server.files[f"/data/{name}"]
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("not hosted there, and optional") == 4
    assert_whole(tmp_path / "out", [*HUB, *TOKENIZER])
    shutil.rmtree(tmp_path / "out")
    del server.files[f"/data/{TOKENIZER[0]}"]
    result = fetch()
    assert result.returncode == 1
    assert f"{TOKENIZER[0]}: not at {server.url}/data/{TOKENIZER[0]}" in result.stderr


def test_without_a_base_address_the_commands_that_make_the_files_are_shown(fetch, tmp_path):
    result = fetch(base=False)
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path / "out", HUB)
    assert "transformerlm-train-tokenizer --config config/resources/train_tokenizer_simplestories.toml" in result.stderr
    assert "transformerlm-prepare-data --config config/resources/prepare_data.toml" in result.stderr
    assert not list((tmp_path / "out").glob("*simplestories*"))


def test_offline_the_message_says_so(fetch, tmp_path):
    nowhere = "http://127.0.0.1:9"  # the discard port: nothing listens there
    result = fetch(base=False, HF_ENDPOINT=nowhere, FETCH_ATTEMPTS="2")
    assert result.returncode == 1
    assert f"{nowhere}/openai-community/gpt2/resolve/main/vocab.json cannot be reached: is there a network?" in (
        result.stderr
    )
    assert not list((tmp_path / "out").glob("vocab*"))


def test_the_token_goes_to_the_hub_and_nowhere_else(fetch, server):
    other = FileServer({path: content for path, content in server.files.items() if path.startswith("/data/")})
    try:
        assert fetch(HF_TOKEN="hf_secret", TRANSFORMERLM_DATA_URL=f"{other.url}/data").returncode == 0
    finally:
        other.close()
    assert {request.headers.get("Authorization") for request in server.requests} == {"Bearer hf_secret"}
    assert len(other.requests) > 7
    assert {request.headers.get("Authorization") for request in other.requests} == {None}


@pytest.mark.parametrize("arguments", [(), ("",), ("--help",), ("a", "b")])
def test_wrong_usage_is_told(arguments):
    result = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_names_with_spaces_are_fine(fetch, tmp_path):
    assert fetch(str(tmp_path / "my data"), base=False).returncode == 0
    assert_whole(tmp_path / "my data", HUB)
