"""transformerlm-prepare-data: any corpus to Megatron files, whole or not at all, the same after any kill."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cli.prepare_data import main
from cli.prepared import choose_dtype
from cli.tokens import choose_split
from trainkit.data.megatron_indexed import MegatronIndexedDataset
from transformerlm.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent
STORIES = ROOT / "config" / "resources" / "tokenizers" / "stories_4k"
FOLDER = Path("out")
WORDS = ["a", "king", "an", "old", "queen", "the", "dragon", "went", "to", "far", "hills", "and", "sang"]


@pytest.fixture
def tokenizer():
    return Tokenizer.load(STORIES)


def overrides(**changes):
    """Return the configuration as overrides: the stories' tokenizer, two workers, the texts in corpus.jsonl."""
    values = {
        "data.dataset_name": "json",
        "data.data_files": "corpus.jsonl",
        "data.tokenizer.vocab_path": STORIES / "vocab.json",
        "data.tokenizer.merges_path": STORIES / "merges.txt",
        "data.tokenizer.special_tokens_path": STORIES / "special_tokens.json",
        "prepare.output_dir": FOLDER,
        "prepare.name": "mine",
        "prepare.tokenizer_name": "stories_4k",
        "prepare.num_workers": 2,
        "prepare.validation_share": 0.2,
    }
    return [f"{key}={value}" for key, value in {**values, **changes}.items()]


def write_corpus(count=200, seed=0, words=30):
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, words))) for _ in range(count)]
    Path("corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


@pytest.fixture
def prepare(run):
    return lambda **changes: run(main, "prepare_data_text.toml", *overrides(**changes))


def tokens_of(split, folder=FOLDER):
    dataset = MegatronIndexedDataset(folder / f"mine_{split}_text_document")
    return [dataset[index].tolist() for index in range(len(dataset))]


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_document_is_in_the_split_that_its_hash_says_in_order_with_its_end_token(prepare, tokenizer):
    texts = write_corpus()
    outcome = prepare()
    assert outcome.code == 0, outcome.err
    for index, split in enumerate(("train", "validation")):
        own = [text for text in texts if choose_split(text.encode(), 0.2) == index]
        expected = [[*tokenizer.encode(text, allowed_special="none"), tokenizer.end_of_text_id] for text in own]
        assert tokens_of(split) == expected
        assert len(own) > 10
    assert MegatronIndexedDataset(FOLDER / "mine_train_text_document").dtype == np.uint16


def test_the_folder_is_whole_and_says_what_is_in_it(prepare, tokenizer):
    texts = write_corpus()
    assert prepare().code == 0
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        *(f"mine_{split}_text_document.{kind}" for split in ("train", "validation") for kind in ("bin", "idx")),
        *("vocab_stories_4k.json", "merges_stories_4k.txt", "special_tokens_stories_4k.json"),
        *("manifest.json", "SHA256SUMS"),
    }
    sums = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: digest for name, digest in digests(FOLDER).items() if name != "SHA256SUMS"}
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    splits = manifest["splits"]
    tokens = tokens_of("train") + tokens_of("validation")
    assert sum(split["documents"] for split in splits.values()) == len(texts) == 200
    assert sum(split["text_bytes"] for split in splits.values()) == sum(map(len, texts))
    assert sum(split["tokens"] for split in splits.values()) == sum(map(len, tokens))
    assert manifest["tokenizer"] == {"sha256": tokenizer.fingerprint(), "vocab_size": 4096}
    histogram = manifest["histogram"]
    flat = [token for document in tokens for token in document]
    counts = {token: flat.count(token) for token in set(flat)}
    assert histogram["tokens"] == len(flat)
    assert histogram["distinct_ids"] == len(counts)
    assert histogram["unused_ids"] == 4096 - len(counts)
    assert histogram["most_frequent"][0]["count"] == max(counts.values())
    shares = np.array(list(counts.values())) / len(flat)
    assert histogram["entropy_bits_per_token"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-3)


def test_the_number_of_workers_changes_no_byte(prepare):
    write_corpus()
    assert prepare().code == 0
    assert prepare(**{"prepare.num_workers": 1, "prepare.output_dir": "single"}).code == 0
    assert digests(FOLDER) == digests(Path("single"))


def test_preparing_again_is_nothing_and_another_corpus_is_refused(prepare):
    write_corpus()
    assert prepare().code == 0
    before = digests(FOLDER)
    outcome = prepare()
    assert (outcome.code, outcome.out) == (0, "out is prepared already, with these settings and files\n")
    write_corpus(count=201)
    outcome = prepare()
    assert outcome.code == 2
    assert "prepare.output_dir: out exists and was made from other settings or files" in outcome.err
    assert digests(FOLDER) == before


def test_a_broken_record_stops_with_file_and_line_and_the_mended_run_goes_on(prepare):
    texts = write_corpus()
    lines = Path("corpus.jsonl").read_text().splitlines()
    lines[66] = '{"text": 5}'
    Path("corpus.jsonl").write_text("\n".join(lines))
    outcome = prepare()
    assert outcome.code == 2
    assert 'corpus.jsonl:67: "text" holds 5, which is not text; mend it, or set on_bad_record = "skip"' in outcome.err
    assert not FOLDER.exists()
    outcome = prepare(**{"data.on_bad_record": "skip"})
    assert outcome.code == 0, outcome.err
    assert "skipped a malformed record: corpus.jsonl:67" in outcome.err
    assert "1 malformed records skipped" in outcome.out
    assert len(tokens_of("train")) + len(tokens_of("validation")) == len(texts) - 1
    assert json.loads((FOLDER / "manifest.json").read_text())["bad_records"] == 1


def test_nothing_held_out_makes_no_validation_files(prepare):
    write_corpus(20)
    assert prepare(**{"prepare.validation_share": 0.0}).code == 0
    assert len(tokens_of("train")) == 20
    assert not list(FOLDER.glob("*validation*"))


def test_the_embedded_stories_and_a_number_of_documents_can_be_prepared(run):
    changes = {"data.dataset_name": "synthetic/stories", "data.max_documents": 60}
    options = [option for option in overrides(**changes) if "data_files" not in option]
    Path("stories.toml").write_text("[data]\n[prepare]\n")
    outcome = run(main, Path("stories.toml").resolve(), *options)
    assert outcome.code == 0, outcome.err
    assert len(tokens_of("train")) + len(tokens_of("validation")) == 60


def test_an_empty_corpus_is_refused(prepare):
    Path("corpus.jsonl").write_text("\n\n")
    outcome = prepare()
    assert outcome.code == 2
    assert "json train holds no document, so 0 tokens" in outcome.err


def test_unfinished_work_of_another_corpus_is_not_mixed_in(prepare):
    write_corpus(30)
    Path("out.partial").mkdir()
    Path("out.partial/settings.json").write_text("{}")
    Path("out.partial/mine_train_text_document.bin.partial").write_bytes(b"rubbish")
    outcome = prepare()
    assert outcome.code == 0
    assert "holds unfinished work of other settings or files; starting anew" in outcome.err
    assert len(tokens_of("train")) + len(tokens_of("validation")) == 30


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(300, "uint16"), (65_535, "uint16"), (65_536, "uint16"), (65_537, "int32")]
)
def test_ids_beyond_sixteen_bits_take_thirty_two(vocab_size, dtype):
    assert choose_dtype(vocab_size) == dtype
    assert np.iinfo(choose_dtype(vocab_size)).max >= vocab_size - 1


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.long
def test_a_run_killed_again_and_again_ends_with_the_same_bytes_and_leaves_no_process(start, prepare):
    write_corpus(count=30_000, words=60)
    changes = {"prepare.sync_megabytes": 1, "prepare.output_dir": "killed"}
    arguments = ["-m", "cli.prepare_data", "--config", str(ROOT / "config/resources/prepare_data_text.toml")]
    arguments += [part for each in overrides(**changes) for part in ("--set", each)]
    progress, seen = Path("killed.partial/progress.json"), 0
    for _ in range(2):
        process = start(*arguments)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if progress.exists() and json.loads(progress.read_text())["records"] > seen:
                break
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read()
        workers = children(process.pid)
        assert len(workers) >= 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not Path("killed").exists()
        seen = json.loads(progress.read_text())["records"]
        deadline = time.monotonic() + 10
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_alive, workers)), "workers must not outlive their parent"
    process = start(*arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert prepare(**{"prepare.sync_megabytes": 1}).code == 0
    assert digests(Path("killed")) == digests(FOLDER)
    assert not Path("killed.partial").exists()


@pytest.mark.slow
def test_a_killed_worker_is_explained_and_the_same_command_goes_on(start):
    write_corpus(count=30_000, words=60)
    arguments = ["-m", "cli.prepare_data", "--config", str(ROOT / "config/resources/prepare_data_text.toml")]
    arguments += [part for each in overrides() for part in ("--set", each)]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not list(Path().glob("out.partial/*.bin.partial")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children(process.pid)}
    os.kill(next(pid for pid, name in names.items() if "spawn_main" in name), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process was killed, perhaps because memory ran out; run the same command again" in err
    assert "Traceback" not in err
    process = start(*arguments)
    assert process.wait(120) == 0
