"""Datasets of the Hub, from a Hub of our own on the loopback: streamed, interrupted, and offline."""

import json
from pathlib import Path

import pytest
from file_server import FileServer

ROOT = Path(__file__).parent.parent.parent
COMMIT = "a" * 40
REPOSITORY = "/datasets/tiny/stories"
OPTIONS = ["data.dataset_name=tiny/stories", "data.text_field=story", "data.val_split=test", "logging.run_name=mine"]

# Prints one line for each record of one rank: place and text, or its problem.
READ = """
import json, sys
from cli.hub import stream_records
from config.sections.data import OneSplitSection
from trainkit.data.documents import Shard
import trainkit.data.streaming as streaming
streaming.time.sleep = lambda seconds: print("waited", seconds, file=sys.stderr)
data = OneSplitSection(dataset_name="tiny/stories", text_field="story")
rank, size, resume_at = map(int, sys.argv[1:])
records = stream_records(data, "train", Shard(rank, size), repeat=False)
for _ in range(resume_at):
    print(json.dumps(next(records)))
if resume_at:
    state = json.loads(json.dumps(records.state_dict()))
    records = stream_records(data, "train", Shard(rank, size), repeat=False)
    records.load_state_dict(state)
for record in records:
    print(json.dumps(record))
"""


class Hub(FileServer):
    """Just enough of a Hub for one dataset of a few files."""

    def publish(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.files[f"{REPOSITORY}/resolve/{COMMIT}/{name}"] = content
        self.headers = lambda path: {"ETag": f'"{hash(path) & 0xFFFF:040x}"', "X-Repo-Commit": COMMIT}
        about = {"id": "tiny/stories", "sha": COMMIT, "tags": [], "siblings": [{"rfilename": name} for name in files]}
        tree = [
            {"type": "file", "oid": "b" * 40, "size": len(content), "path": name} for name, content in files.items()
        ]
        for path in ("", "/revision/main", f"/revision/{COMMIT}"):
            self.dynamic[f"/api{REPOSITORY}{path}"] = lambda _request, _body: answer(about)
        for revision in ("main", COMMIT):
            self.dynamic[f"/api{REPOSITORY}/tree/{revision}"] = lambda _request, _body: answer(tree)

    def data_requests(self) -> list:
        return [request for request in self.requests if request.method == "GET" and request.path in self.files]


def answer(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def write_lines(first: int, count: int) -> bytes:
    return b"".join(
        json.dumps({"story": f"Story number {index} is about a cat."}).encode() + b"\n"
        for index in range(first, first + count)
    )


@pytest.fixture
def hub():
    hub = Hub()
    hub.publish(
        {
            "train-1.jsonl": write_lines(0, 150),
            "train-2.jsonl": write_lines(150, 150),
            "train-3.jsonl": write_lines(300, 20),
            "test.jsonl": write_lines(1000, 100),
        }
    )
    yield hub
    hub.close()


@pytest.fixture
def environment(hub, tmp_path):
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}


def read(start, environment, rank=0, size=1, resume_at=0):
    process = start("-c", READ, str(rank), str(size), str(resume_at), **environment)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


EXPECTED = [f"Story number {index} is about a cat." for index in range(320)]


@pytest.mark.long
def test_a_stream_that_is_cut_and_refused_loses_and_repeats_nothing_and_says_so(hub, start, environment):
    whole, err = read(start, environment)
    assert [record[2] for record in whole] == EXPECTED
    assert whole[5][1] == "tiny/stories train, record 6"
    assert "waited" not in err
    assert {r.headers.get("authorization", r.headers.get("Authorization")) for r in hub.data_requests()} == {
        "Bearer hf_secret"
    }
    hub.cut_after = [10**9] * 2 + [3000, 0, 200] * 3  # the Hub's own client tries six times
    disturbed, err = read(start, environment)
    assert disturbed == whole
    assert "tiny/stories train: Server Disconnected; trying again in 1 s (1 of 6)" in err, err


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_a_stream_record_by_record_and_resume_exactly(start, environment, size):
    shares = [read(start, environment, rank, size)[0] for rank in range(size)]
    assert [[record[2] for record in share] for share in shares] == [EXPECTED[rank::size] for rank in range(size)]
    resumed, _ = read(start, environment, 1, size, resume_at=70)
    assert resumed == shares[1]


def train(start, small_arguments, environment, *overrides):
    arguments = small_arguments(*OPTIONS, "sampling.prompts=[]", "training.max_steps=2", *overrides)
    process = start("-m", "cli.train", *arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def fetch_only(start, environment):
    stories = ROOT / "config/resources/tokenizers/stories_4k"
    files = {"vocab_path": "vocab.json", "merges_path": "merges.txt", "special_tokens_path": "special_tokens.json"}
    options = [f"data.tokenizer.{key}={stories / name}" for key, name in files.items()]
    options += ["data.dataset_name=tiny/stories"]
    arguments = [part for option in options for part in ("--set", option)]
    config = str(ROOT / "config/resources/prepare_data.toml")
    process = start("-m", "cli.prepare_data", "--config", config, *arguments, "--fetch-only", **environment)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "HF_DATASETS_OFFLINE=1 works from here on" in out


@pytest.mark.long
def test_offline_training_works_after_fetching_and_not_after_streaming(
    hub, start, small_arguments, environment, tmp_path
):
    cache = {**environment, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    offline = {**cache, "HF_DATASETS_OFFLINE": "1"}
    code, _, err = train(start, small_arguments, cache)
    assert code == 0, err
    code, _, err = train(start, small_arguments, offline, "logging.run_name=offline")
    assert code == 2, "streaming keeps nothing"
    assert "data.dataset_name: 'tiny/stories' cannot be loaded" in err
    assert "fetch the dataset while there is one: transformerlm-prepare-data --fetch-only" in err
    assert "trying again" not in err
    fetch_only(start, cache)
    assert list((tmp_path / "cache").glob("tiny___stories/**/*.arrow"))
    hub.requests.clear()
    for streaming in ("true", "false"):
        code, _, err = train(
            start, small_arguments, offline, f"data.streaming={streaming}", f"logging.run_name={streaming}"
        )
        assert code == 0, err
    assert hub.requests == []


@pytest.mark.slow
def test_a_dataset_that_is_not_there_is_refused_without_waiting(start, small_arguments, environment):
    code, _, err = train(start, small_arguments, environment, "data.dataset_name=tiny/nothing")
    assert code == 2
    assert "data.dataset_name: 'tiny/nothing' cannot be loaded" in err
    assert "trying again" not in err


@pytest.mark.slow
def test_a_field_that_the_dataset_lacks_is_named_with_those_it_has(start, small_arguments, environment):
    code, _, err = train(start, small_arguments, environment, "data.text_field=text")
    assert code == 2
    assert 'tiny/stories test, record 1: no field "text"; it has story' in err
