"""Every sampler that a checkpoint allows stands in the table once, held against one token per step without a cache."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarking import quality_frontier
from benchmarking.story_quality import Quality
from transformerlm.checkpoint import LoadedModel, save_model
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer

REFERENCE = Quality(100, 0.5, 0.9, 0.01, 0.7, 0.01, 4.0)
STORIES = Path("config/resources/tokenizers/stories_4k")


@pytest.fixture
def make_checkpoint(tmp_path):
    def make(objective: str, **shape: object) -> str:
        torch.manual_seed(0)
        model = TransformerLM(ModelShape(4096, 24, 16, 1, 2, 2, 32, **shape))
        folder = tmp_path / objective
        folder.mkdir()
        save_model(LoadedModel(model, Tokenizer.load(STORIES), objective, None), folder)
        return str(folder)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "shape", "caches"),
    [("masked_diffusion", {}, ("prefix", "dual")), ("block_diffusion", {"block_length": 4}, ("block",))],
)
def test_each_cache_and_policy_has_a_line(make_checkpoint, capsys, objective, shape, caches):
    arguments = ["--checkpoint", make_checkpoint(objective, **shape), "--baseline", make_checkpoint("autoregressive")]
    assert quality_frontier.main([*arguments, "--texts", "3", "--rounds", "1"]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    names = [line.split("  ")[0] for line in table[1:]]
    single = [quality_frontier.EXACT, *(f"one token per step, {cache}" for cache in caches)]
    assert names[: len(single)] == single
    assert names[len(single)] == f"2 tokens per step, {caches[-1]}"
    assert names[-1] == "autoregressive, KV cache"
    assert len(names) == len(set(names)) == len(single) + 1 + len(quality_frontier.POLICIES) + 1
    first = table[1].split()
    assert "1.0" in first, "the first line is as fast as itself"
    assert "+0.000" in first
    assert int(first[first.index("cache") + 1]) >= int(table[len(single) + 1].split()[5]), "two at a time, fewer passes"


@pytest.mark.parametrize(
    ("nats", "entropy", "expected"),
    [
        (0.7, 4.0, True),
        (0.709, 4.03, True),
        (0.711, 4.0, False),
        (0.2, 4.0, True),
        (0.7, 4.05, False),
        (0.7, 3.9, False),
    ],
)
def test_equal_texts_are_as_likely_and_as_varied(nats, entropy, expected):
    quality = replace(REFERENCE, nats_per_token=nats, sample_entropy=entropy)
    assert quality_frontier.is_equal(quality, REFERENCE) is expected
