"""[data]: every way to read a corpus trains, resumes exactly, and says what is wrong with it."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trainkit.data.megatron_indexed import MegatronIndexedWriter

RUN = "logging.run_name=mine"


def steps_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "loss" in line]


def write_corpora():
    """Write one corpus as text and as Megatron files."""
    Path("mine.txt").write_text("\n\n".join(f"A paragraph about the number {i}." for i in range(400)))
    writer = MegatronIndexedWriter("corpus", np.uint16)
    for index in range(40):
        writer.add_document(np.arange(90, dtype=np.uint16) + 40 * index)
    writer.finish()


FILES = ["data.dataset_name=text", 'data.data_files={train="mine.txt", validation="mine.txt"}']
MEGATRON = ["data.pipeline_mode=megatron", "data.megatron_train_prefix=corpus", "data.megatron_val_prefix=corpus"]
PIPELINES = {
    "stories": [],
    "diffusion": ["objective.name=masked_diffusion"],
    "documents apart": ["data.mask_documents=true"],
    "documents apart, diffusion": ["data.mask_documents=true", "objective.name=masked_diffusion"],
    "files": [*FILES, "data.shuffle_buffer_size=30", "data.num_workers=2"],
    "files, indexed": [*FILES, "data.streaming=false", "data.prefetch_batches=0"],
    "rows": [*FILES, "data.pipeline_mode=rows", "data.pad_token_id=4094"],
    "megatron": MEGATRON,
}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_resumed_run_equals_an_uninterrupted_one(train_small, pipeline):
    write_corpora()
    kind = [*PIPELINES[pipeline], "sampling.prompts=[]", "training.eval_every=4"]
    assert train_small("logging.run_name=whole", *kind, "checkpointing.keep_last=0").code == 0
    shutil.copytree("runs/whole", "runs/cut", symlinks=True)
    for path in ("checkpoints/latest", "checkpoints/step_00000004"):
        target = Path("runs/cut") / path
        target.unlink() if target.is_symlink() else shutil.rmtree(target)
    outcome = train_small("checkpointing.resume_from=runs/cut", *kind)
    assert outcome.code == 0, outcome.err
    assert steps_of(Path("runs/cut")) == [1, 2, 3, 4]
    whole, cut = (load_file(f"runs/{name}/checkpoints/step_00000004/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.long
@pytest.mark.parametrize("pipeline", ["rows", "megatron"])
def test_two_processes_go_through_several_epochs_of_uneven_data_and_resume_as_two_only(train_small, pipeline):
    write_corpora()
    Path("mine.txt").write_text("\n\n".join("A few words. " * (i % 7 + 1) for i in range(23)))
    kind = [*PIPELINES[pipeline], "ddp.nproc_per_node=2", "sampling.prompts=[]", "training.max_steps=14"]
    outcome = train_small(RUN, *kind)
    assert outcome.code == 0, outcome.err
    assert steps_of(Path("runs/mine")) == list(range(1, 15))
    alone = [*kind, "ddp.nproc_per_node=1", "training.max_steps=16", "checkpointing.resume_from=runs/mine"]
    outcome = train_small(*alone)
    assert outcome.code == 2
    assert "saved by 2 processes and this run has 1" in outcome.err
    assert "resume with 2 processes, or start a new run" in outcome.err


@pytest.mark.long
@pytest.mark.parametrize("pipeline", ["files", "megatron"])
def test_a_run_killed_again_and_again_ends_with_the_weights_of_the_uninterrupted_one(
    train_small, start, small_arguments, pipeline
):
    """Real processes, ended by SIGKILL wherever they are, batches waiting in the queue."""
    write_corpora()
    kind = [*PIPELINES[pipeline], "sampling.prompts=[]", "training.max_steps=60", "training.skip_validation=true"]
    assert train_small("logging.run_name=whole", *kind).code == 0
    folder, arguments = Path("runs/mine"), small_arguments(RUN, *kind)
    for kill in range(4):
        process = start("-m", "cli.train", *arguments)
        if kill < 3:
            known, deadline = newest_step(folder), time.monotonic() + 90
            while newest_step(folder) < known + 6 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            assert process.poll() is None, process.stderr.read()
            process.kill()
            process.wait()
            arguments = small_arguments(*kind, "checkpointing.resume_from=runs/mine")
        else:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
    names = ("model.safetensors", "optimizer.pt")
    whole, killed = (Path(f"runs/{run}/checkpoints/step_00000060") for run in ("whole", "mine"))
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)


def newest_step(folder):
    link = folder / "checkpoints" / "latest"
    return int(link.readlink().name.removeprefix("step_")) if link.is_symlink() else 0


def text_overrides(path, *more):
    return [
        "data.dataset_name=text",
        f'data.data_files={{train="{path}", validation="{path}"}}',
        "data.sample_by=paragraph",
        RUN,
        *more,
    ]


@pytest.mark.parametrize("streaming", ["true", "false"])
@pytest.mark.parametrize("mode", ["packed", "rows"])
def test_own_text_files_train(train_small, streaming, mode):
    Path("mine.txt").write_text("\n\n".join(f"A paragraph about the number {i}." for i in range(400)))
    options = [f"data.streaming={streaming}", f"data.pipeline_mode={mode}"]
    options += ["data.pad_token_id=4094"] if mode == "rows" else []
    outcome = train_small(*text_overrides("mine.txt", *options))
    assert outcome.code == 0, outcome.err
    assert "bigram" in outcome.out
    assert "the truth" not in outcome.out


def test_a_corpus_shorter_than_one_row_is_refused_with_its_size(train_small):
    Path("short.txt").write_text("Just a few words.")
    outcome = train_small(*text_overrides("short.txt", "training.skip_validation=true"))
    assert outcome.code == 2
    assert "fewer than one row of 65: give it more text" in outcome.err


def test_an_empty_corpus_is_refused(train_small):
    Path("empty.txt").write_text("")
    outcome = train_small(*text_overrides("empty.txt"))
    assert outcome.code == 2
    assert "empty.txt" in outcome.err
    assert "empty" in outcome.err


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_text_that_is_not_utf8_is_named_with_the_remedy(train_small, streaming):
    Path("latin.txt").write_bytes("caf\u00e9 au lait\n\n".encode("latin-1") * 200)
    outcome = train_small(*text_overrides("latin.txt", f"data.streaming={streaming}"))
    assert outcome.code == 2
    assert "latin.txt:1: not UTF-8 text: invalid continuation byte at its byte 4; mend it, or" in outcome.err


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_broken_records_are_skipped_and_reported_when_that_is_asked_for(train_small, streaming):
    records = [f'{{"text": "A sentence about the number {index}."}}\n' for index in range(300)]
    records[6], records[40] = '{"text": broken\n', '{"body": "b"}\n'
    Path("records.jsonl").write_text("".join(records))
    files = 'data.data_files={train="records.jsonl", validation="records.jsonl"}'
    options = ["data.dataset_name=json", files, "data.on_bad_record=skip", f"data.streaming={streaming}", RUN]
    outcome = train_small(*options, "data.shuffle_buffer_size=0")
    assert outcome.code == 0, outcome.err
    assert "skipped a malformed record" in outcome.err
    assert "records.jsonl:7: broken JSON" in outcome.err
    assert 'records.jsonl:41: no field "text"; it has body' in outcome.err


def test_rows_without_a_padding_token_are_refused(train_small):
    outcome = train_small("data.pipeline_mode=rows")
    assert outcome.code == 2
    assert "data.pad_token_id: required; set it to an integer >= 0 (Token that fills short rows" in outcome.err


def test_a_validation_split_shorter_than_one_row_is_refused_with_its_size(train_small):
    Path("long.txt").write_text("\n\n".join(f"A paragraph about the number {i}." for i in range(400)))
    Path("short.txt").write_text("Just a few words.")
    files = 'data.data_files={train="long.txt", validation="short.txt"}'
    outcome = train_small("data.dataset_name=text", files, RUN)
    assert outcome.code == 2
    assert "the validation split holds 8 tokens, fewer than one row of 65: give it more text" in outcome.err
    assert "training.skip_validation = true" in outcome.err


def test_broken_json_is_named(train_small):
    Path("broken.jsonl").write_text('{"text": "fine"}\n{"text": broken\n')
    options = ["data.dataset_name=json", 'data.data_files={train="broken.jsonl", validation="broken.jsonl"}', RUN]
    outcome = train_small(*options)
    assert outcome.code == 2
    assert "broken.jsonl" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_missing_field_is_named_with_the_fields_there_are(train_small):
    Path("records.jsonl").write_text('{"body": "text", "title": "t"}\n' * 10)
    outcome = train_small(
        "data.dataset_name=json", 'data.data_files={train="records.jsonl", validation="records.jsonl"}', RUN
    )
    assert outcome.code == 2
    assert 'no field "text"' in outcome.err
    assert "body, title" in outcome.err


def test_prepared_files_of_another_tokenizer_are_refused_with_the_document_named(train_small):
    write_corpora()
    writer = MegatronIndexedWriter("corpus", np.int32)
    writer.add_document(np.arange(3900, 4200, dtype=np.int32))
    writer.finish()
    outcome = train_small(*MEGATRON, RUN)
    assert outcome.code == 2
    assert "corpus: document 0 holds the token id 4" in outcome.err
    assert "the vocabulary has 4096" in outcome.err


def test_prepared_files_are_not_read_with_another_tokenizer_of_the_same_size(train_small):
    write_corpora()
    manifest = {"format": "transformerlm prepared data", "settings": {}, "splits": {"corpus": {}}}
    Path("manifest.json").write_text(json.dumps({**manifest, "tokenizer": {"sha256": "0" * 64}}))
    outcome = train_small(*MEGATRON, RUN)
    assert outcome.code == 2
    assert "corpus: manifest.json says that another tokenizer made these tokens" in outcome.err


def test_prepared_files_that_are_missing_or_hold_fractions_are_refused(train_small):
    missing = train_small(*MEGATRON, RUN)
    assert "data.megatron_train_prefix: no such file: corpus.bin" in missing.err
    assert missing.code == 2
    writer = MegatronIndexedWriter("corpus", np.float32)
    writer.add_document(np.arange(200, dtype=np.float32))
    writer.finish()
    outcome = train_small(*MEGATRON, RUN)
    assert outcome.code == 2
    assert "corpus.idx: holds float32 numbers, not token ids" in outcome.err


def test_a_position_in_other_data_is_refused(train_small):
    write_corpora()
    assert train_small(RUN, "training.max_steps=2").code == 0
    outcome = train_small(*FILES, "checkpointing.resume_from=runs/mine")
    assert outcome.code == 2
    assert "position is one in packed rows of 65 from synthetic/stories train, streamed, and this run" in outcome.err


def test_metrics_tell_the_share_of_time_spent_waiting_for_data(train_small):
    assert train_small(RUN).code == 0
    lines = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    shares = [line["data_wait_share"] for line in lines if "data_wait_share" in line]
    assert len(shares) == 4
    assert all(0 <= share < 1 for share in shares)
