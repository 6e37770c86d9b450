"""A trace replays to the text it recorded, and its page holds it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.inference.helpers import MASK
from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.plan import Policy
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.inference.trace import Trace
from transformerlm.inference.trace_page import render_page
from transformerlm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(Path("config/resources/tokenizers/stories_4k"))


@pytest.fixture
def make_predictor(make_model, tokenizer):
    def make(objective):
        return Predictor(LoadedModel(make_model(vocab_size=4096, context_length=32), tokenizer, objective, None))

    return make


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("autoregressive", {}),
        ("masked_diffusion", {"steps": 9}),
        ("masked_diffusion", {"policy": Policy("remdm", remask_share=0.4), "steps": 40}),
        ("masked_diffusion", {"policy": Policy("first_hitting")}),
        ("block_diffusion", {"policy": Policy("threshold", threshold=0.1)}),
        ("joint", {"mode": "verified"}),
    ],
)
def test_every_generation_replays_to_the_same_text(make_predictor, objective, changes, tmp_path):
    predictor = make_predictor(objective)
    settings = GenerationSettings(20, block_length=8, **changes)
    trace, prompts = predictor.new_trace(settings), ["Once upon", "", "A"]
    generations = predictor.generate(prompts, settings, trace=trace)
    trace.save(tmp_path / "trace.json")
    for read in (trace, Trace.load(tmp_path / "trace.json")):
        assert [read.text(row, predictor.tokenizer) for row in range(3)] == [each.text for each in generations]
        assert read.replay(0, 0)[:1] == [predictor.tokenizer.end_of_text_id]
        assert OPEN in read.replay(0, 1)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("autoregressive", {}),
        ("masked_diffusion", {"cache": "dual"}),
        ("masked_diffusion", {"policy": Policy("remdm", remask_share=0.4), "steps": 40}),
        ("block_diffusion", {"policy": Policy("threshold", threshold=0.1)}),
        ("joint", {"mode": "verified"}),
    ],
)
def test_texts_go_on_behind_their_ends_if_asked(make_predictor, objective, changes):
    predictor = make_predictor(objective)
    likes_to_end(predictor)
    for ignore_eos in (False, True):
        settings = GenerationSettings(20, block_length=8, ignore_eos=ignore_eos, **changes)
        trace, shown = predictor.new_trace(settings), {}
        generations = predictor.generate(["Once upon", "", "A"], settings, shown.__setitem__, trace=trace)
        assert [shown[row] for row in range(3)] == [each.completion for each in generations]
        assert [trace.text(row, predictor.tokenizer) for row in range(3)] == [each.text for each in generations]
        assert {each.finish for each in generations} == ({"length"} if ignore_eos else {"end"})
        assert all("<|endoftext|>" in each.completion for each in generations) == ignore_eos
        if ignore_eos:
            assert all(each.prompt_tokens + each.generated_tokens == 20 for each in generations)


def likes_to_end(predictor):
    """Let the model give the end-of-text token a probability of about a half everywhere."""
    model = predictor.model
    with torch.no_grad():
        model.norm.weight.fill_(1.0)
        model.embedding.weight.fill_(1.0)
        model.head.weight[predictor.tokenizer.end_of_text_id] = math.log(4096) / model.shape.d_model


def test_traces_record_a_row_as_if_it_were_alone(make_predictor):
    predictor, settings = make_predictor("masked_diffusion"), GenerationSettings(16, block_length=4)
    together, alone = predictor.new_trace(settings), predictor.new_trace(settings)
    predictor.generate(["Once upon", ""], settings, seeds=[3, 4], trace=together)
    predictor.generate([""], settings, seeds=[4], trace=alone)
    steps = [[(c.step, c.position, c.token) for c in trace.rows[-1].changes] for trace in (together, alone)]
    assert steps[0] == steps[1]


def test_the_page_is_self_contained_and_holds_every_change(make_predictor):
    predictor = make_predictor("masked_diffusion")
    settings = GenerationSettings(24, policy=Policy("remdm", remask_share=0.4), steps=30)
    trace = predictor.new_trace(settings)
    predictor.generate(["Once </script>", Canvas.with_holes([0, OPEN, 5])], settings, trace=trace)
    page = render_page(trace, predictor.tokenizer, "a title")
    assert "http" not in page
    assert "src=" not in page
    data = json.loads(re.search(r"const data = (.*);\n", page).group(1))
    assert page.count("</script>") == 1
    assert [sum(map(len, row["steps"])) for row in data["rows"]] == [len(row.changes) for row in trace.rows]
    masked_again = sum(change.token == predictor.tokenizer.mask_id for row in trace.rows for change in row.changes)
    assert masked_again > 0
    assert sum(change[1] is None for row in data["rows"] for step in row["steps"] for change in step) == masked_again
    assert data["rows"][1]["given"][1] is None


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"format": 9}'])
def test_files_that_are_no_traces_are_refused(tmp_path, content):
    (tmp_path / "trace.json").write_text(content)
    with pytest.raises(ValueError, match=r"trace\.json"):
        Trace.load(tmp_path / "trace.json")


def test_the_mask_of_the_helpers_is_not_the_tokenizers(tokenizer):
    assert tokenizer.mask_id != MASK
