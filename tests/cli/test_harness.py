"""EleutherAI's harness on our checkpoints: the numbers it reports are the ones we find ourselves."""

import json
import math
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli import harness
from transformerlm.checkpoint import load_model
from transformerlm.evaluation.choices import score_choices, story_questions
from transformerlm.likelihood.score import Passage
from transformerlm.likelihood.scorer import LikelihoodSettings, open_likelihood
from transformerlm.synthetic import stories

TASKS = {
    "story_endings": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: options
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    "story_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
""",
    "story_continue": """
output_type: generate_until
doc_to_text: "Once upon a time"
doc_to_target: ""
generation_kwargs: {until: ["."], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
""",
}


def test_without_the_harness_the_remedy_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.__main__", raising=False)
    assert harness.main() == 2
    assert "uv sync --extra lm-eval" in capsys.readouterr().err


def test_the_package_says_where_its_model_is():
    [entry] = entry_points(group="lm_eval.models", name="transformerlm")
    assert find_spec(entry.module).origin.endswith("transformerlm/evaluation/harness.py")
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: uv sync --extra lm-eval")
    assert entry.load().__name__ == "TransformerLMHarness"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["autoregressive", "masked_diffusion"])
def test_the_harness_runs_tasks_from_local_files(objective, trained, tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: uv sync --extra lm-eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lm_eval.tasks import TaskManager

    from transformerlm.evaluation.harness import TransformerLMHarness  # registers the model

    questions = story_questions(4)
    rows = [{"question": q.question, "options": q.options, "answer": q.answer} for q in questions]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}"
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{source}\ntest_split: test\n{body}")
    folder = trained(objective)
    found = lm_eval.simple_evaluate(
        model="transformerlm",
        model_args={"path": str(folder), "draws": 4},
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
        log_samples=True,
    )
    loaded = load_model(folder)
    likelihood = open_likelihood(loaded, LikelihoodSettings(draws=4))
    length = loaded.model.shape.context_length
    choices = score_choices(likelihood, loaded.tokenizer, questions, length)
    assert found["results"]["story_endings"]["acc,none"] == choices.accuracy
    passages = [
        passage
        for question in questions
        for passage in Passage.windows(
            [loaded.tokenizer.end_of_text_id, *loaded.tokenizer.encode(question.question)], length
        )
    ]
    nats = sum(score.nats for score in likelihood.score(passages))
    bytes_scored = sum(len(question.question.encode()) for question in questions)
    bits = found["results"]["story_text"]["bits_per_byte,none"]
    assert bits == pytest.approx(nats / math.log(2) / bytes_scored, rel=1e-4)
    texts = {sample["filtered_resps"][0] for sample in found["samples"]["story_continue"]}
    model = TransformerLMHarness(str(folder), draws=4, device="cpu")
    again = model._generate("Once upon a time", {"until": ["."], "max_gen_toks": 12})
    assert texts == {again.completion}
    assert "." not in again.completion
    assert 0 < again.generated_tokens <= 12


@pytest.mark.slow
def test_the_harness_s_own_command_runs_the_story_endings(trained):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: uv sync --extra lm-eval")
    folder = trained("autoregressive")
    task = Path(__file__).parents[2] / "config/resources/lm_eval/story_endings.yaml"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "transformerlm", "--model_args", f"path={folder}"]
    command += ["--tasks", str(task), "--metadata", '{"num_questions": 20}', "--device", "cpu"]
    offline = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
    loaded = load_model(folder)
    likelihood = open_likelihood(loaded, LikelihoodSettings())
    length = loaded.model.shape.context_length
    expected = score_choices(likelihood, loaded.tokenizer, story_questions(20), length).accuracy
    found = re.search(r"\|acc *\|↑ *\| *([\d.]+)\|", done.stdout)
    assert float(found.group(1)) == expected


@pytest.mark.slow
def test_a_context_that_is_too_long_loses_its_beginning(trained):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: uv sync --extra lm-eval")
    from transformerlm.evaluation.harness import TransformerLMHarness

    model = TransformerLMHarness(str(trained("autoregressive")), device="cuda:0")  # what lm_eval asks for by default
    generation = model._generate(stories.story("test", 0) * 3, {"until": [], "max_gen_toks": 10})
    assert generation.prompt_tokens == model.context_length - 10
    ((log_probability, _),) = model._loglikelihood_tokens([(("", "x"), [0] * 500, [5, 6])])
    assert -math.inf < log_probability < 0
