"""One table for every objective: the same text, bounds marked, everything that is wrong said at once."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli import eval as eval_command
from trainkit.data.megatron_indexed import MegatronIndexedWriter
from transformerlm.synthetic import stories
from transformerlm.tokenizer import Tokenizer

STORIES_TOKENIZER = Path(__file__).parent.parent.parent / "config" / "resources" / "tokenizers" / "stories_4k"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens.json")

SMALL_TASKS = ["data.max_documents=4", "evaluation.draws=4", "choices.max_questions=2"]


@pytest.fixture
def evaluate(capsys, tmp_path):
    """Run transformerlm-eval on stories and questions, without the gaps, for which the small models are too short."""
    config = tmp_path / "eval.toml"
    config.write_text('[data]\ndataset_name = "synthetic/stories"\n[choices]\n')

    def call(*checkpoints, overrides=(), options=()):
        pairs = [part for override in (*SMALL_TASKS, *overrides) for part in ("--set", override)]
        code = eval_command.main(["--config", str(config), *map(str, checkpoints), *pairs, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.slow
def test_three_objectives_share_a_table(trained, evaluate):
    folders = [trained(name) for name in ("autoregressive", "masked_diffusion", "block_diffusion")]
    code, out, err = evaluate(*folders)
    assert code == 0, err
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith(str(folders[0].parent.parent))}
    assert rows.keys() == {"autoregressive", "masked_diffusion", "block_diffusion"}
    text = out.split("\n\n")[0]
    assert [("<=" in line) for line in text.splitlines()[2:5]] == [False, True, True]
    assert "exact" in text.splitlines()[2]
    assert text.splitlines()[5].startswith("the truth")
    assert "choices: 2 questions, chance 25.0%" in out


def test_json_says_what_the_table_says_and_more(trained, evaluate):
    code, out, err = evaluate(trained("autoregressive"), options=["--json"])
    assert code == 0, err
    record = json.loads(out)
    text = record["text"]
    assert record["objective"] == "autoregressive"
    assert (text["is_bound"], text["draw_error"]) == (False, 0.0)
    assert text["num_tokens"] > 100
    assert text["num_bytes"] > text["num_tokens"]
    bits = text["nats_per_token"] * text["num_tokens"] / math.log(2)
    assert text["bits_per_byte"] == pytest.approx(bits / text["num_bytes"])
    assert text["excess_nats_per_token"] < text["nats_per_token"]
    assert text["excess_error"] < text["nats_per_token"]
    assert 0 <= record["choices"]["accuracy"] <= 1
    assert "infilling" not in record


@pytest.mark.slow
def test_draws_and_seed_decide_a_bound_and_batches_do_not(trained, evaluate):
    def bound(*overrides):
        code, out, err = evaluate(trained("masked_diffusion"), overrides=overrides, options=["--json"])
        assert code == 0, err
        return json.loads(out)["text"]["nats_per_token"]

    first = bound()
    assert bound("evaluation.batch_size=3") == pytest.approx(first, abs=1e-4)
    assert bound("evaluation.seed=1") != pytest.approx(first, abs=1e-4)


def test_every_missing_checkpoint_is_named(evaluate):
    code, _, err = evaluate("nowhere", "elsewhere")
    assert code == 2
    assert "nowhere: no such checkpoint" in err
    assert "elsewhere: no such checkpoint" in err
    assert "Traceback" not in err


def with_another_tokenizer(run, copy):
    """Copy a run, and exchange two merges of its tokenizer."""
    shutil.copytree(run, copy, symlinks=True)
    (folder,) = {path.resolve() for path in (copy / "checkpoints").glob("latest")}
    file = folder / "tokenizer" / "merges.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:2], lines[3], lines[2], *lines[4:]]) + "\n", encoding="utf-8")
    return copy


def test_rows_of_different_tokenizers_are_not_compared(trained, evaluate, tmp_path):
    plain, other = trained("autoregressive"), with_another_tokenizer(trained("autoregressive"), tmp_path / "other")
    code, _, err = evaluate(plain, other)
    assert code == 2
    assert 'set evaluation.layout = "documents"' in err
    code, out, err = evaluate(plain, other, overrides=['evaluation.layout="documents"'])
    assert code == 0, err
    assert "4 rows or documents" in out


def write_stories(count=6):
    """Write the same stories as text and, by the tokenizer of all the small models, as Megatron files."""
    texts = [stories.story("validation", index) for index in range(count)]
    Path("stories.txt").write_text("\n\n".join(texts), encoding="utf-8")
    words = Tokenizer.from_files(*(STORIES_TOKENIZER / name for name in TOKENIZER_FILES))
    writer = MegatronIndexedWriter("prepared", np.uint16)
    for text in texts:
        writer.add_document(np.array([*words.encode(text), words.end_of_text_id], dtype=np.uint16))
    writer.finish()


PREPARED = ['data.dataset_name=""', "data.megatron_prefix=prepared"]


def test_prepared_tokens_are_scored_as_their_text_is(trained, evaluate):
    write_stories()
    files = ["data.dataset_name=text", 'data.data_files={validation="stories.txt"}']
    results = []
    for source in (files, PREPARED):
        code, out, err = evaluate(trained("autoregressive"), overrides=source, options=["--json"])
        assert code == 0, err
        results.append(json.loads(out)["text"])
    assert results[0] == results[1]
    assert results[0]["num_tokens"] > 100
    code, out, err = evaluate(trained("autoregressive"), overrides=PREPARED)
    assert out.startswith("prepared: "), err


def test_prepared_tokens_need_the_tokenizer_that_made_them(trained, evaluate, tmp_path):
    write_stories()
    plain, other = trained("autoregressive"), with_another_tokenizer(trained("autoregressive"), tmp_path / "other")
    apart = [*PREPARED, 'evaluation.layout="documents"']
    code, _, err = evaluate(plain, other, overrides=apart)
    assert (code, "data.tokenizer: required, because these checkpoints have 2 different ones" in err) == (2, True)
    keys = ("vocab_path", "merges_path", "special_tokens_path")
    files = [
        f"data.tokenizer.{key}={STORIES_TOKENIZER / name}" for key, name in zip(keys, TOKENIZER_FILES, strict=True)
    ]
    assert evaluate(plain, other, overrides=[*apart, *files])[0] == 0
    manifest = {"format": "transformerlm prepared data", "settings": {}, "splits": {"prepared": {}}}
    Path("manifest.json").write_text(json.dumps({**manifest, "tokenizer": {"sha256": "0" * 64}}))
    code, _, err = evaluate(plain, overrides=PREPARED)
    assert (code, "manifest.json says that another tokenizer made these tokens" in err) == (2, True)
    writer = MegatronIndexedWriter("prepared", np.uint16)
    writer.add_document(np.array([5, 4096], dtype=np.uint16))
    writer.finish()
    Path("manifest.json").unlink()
    code, _, err = evaluate(plain, overrides=PREPARED)
    assert (code, "prepared: document 0: " in err, "4096" in err) == (2, True, True)


def test_a_question_file_is_answered(trained, evaluate):
    Path("questions.jsonl").write_text('{"question": "Once upon a", "options": ["time", "tune"], "answer": 0}\n')
    code, out, err = evaluate(trained("autoregressive"), overrides=["choices.file=questions.jsonl"])
    assert code == 0, err
    assert "choices: 1 questions, chance 50.0%" in out
    code, _, err = evaluate(trained("autoregressive"), overrides=["choices.file=nothing.jsonl"])
    assert (code, "choices.file: no such file: nothing.jsonl" in err) == (2, True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "nothing to measure; add [data], [choices] or [infilling]"),
        ("mask_draw = 'complementary'\ndraws = 3", "come in pairs, and draws = 3; use 4"),
        ("context_length = 99\n[choices]", "evaluation.context_length: 99 exceeds the 64 tokens"),
        ("[data]\nmax_documents = 3", "data.dataset_name: required; name a dataset, or set megatron_prefix"),
        ("[data]\ndataset_name = 'text'\ndata_files = 'x'\nmegatron_prefix = 'x'", "stands beside megatron_prefix"),
        ("[data]\nmegatron_prefix = 'x'", "data.megatron_prefix: no such file: x.bin"),
        ("[infilling]\nsource = 'synthetic/hidden_markov'", "needs a tokenizer with a token for each letter"),
    ],
)
def test_what_cannot_be_measured_is_refused(trained, capsys, tmp_path, table, message):
    (tmp_path / "eval.toml").write_text(f"[evaluation]\n{table}\n")
    code = eval_command.main(["--config", str(tmp_path / "eval.toml"), str(trained("autoregressive"))])
    err = capsys.readouterr().err
    assert (code, "Traceback" in err) == (2, False)
    assert message in err
