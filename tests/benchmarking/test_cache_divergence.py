"""The divergence of a cache is zero where the cache is exact, and not where it is not."""

import pytest

from benchmarking.cache_divergence import measure_divergence
from tests.inference.helpers import END, MASK, PROMPTS, seeds_of, without_end
from transformerlm.inference.diffusion import DiffusionSettings
from transformerlm.inference.sampling import SamplingSettings


@pytest.mark.parametrize(
    ("cache", "layers", "is_exact"),
    [("dual", 1, True), ("prefix", 1, True), ("block", 2, True), ("dual", 2, False), ("prefix", 2, False)],
)
def test_divergence_is_zero_for_exact_caches_only(make_model, cache, layers, is_exact):
    settings = DiffusionSettings(MASK, END, 4, cache=cache, is_block_causal=cache == "block")
    model, canvases = make_model(num_layers=layers), without_end(PROMPTS)
    divergence = measure_divergence(model, canvases, settings, SamplingSettings(), seeds_of(3))
    assert divergence == pytest.approx(0.0, abs=1e-12) if is_exact else divergence > 1e-3
