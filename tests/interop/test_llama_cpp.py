"""llama.cpp itself on our GGUF files: uv run --with llama-cpp-python pytest tests/interop/test_llama_cpp.py

Building llama.cpp takes a quarter of an hour, so it is not among the dependencies, and this is skipped without it.
"""

import itertools

import numpy as np
import pytest
import torch

from tests.interop.helpers import CORPUS
from tests.interop.models import make_loaded
from transformerlm.interop.gguf_file import export_gguf

llama_cpp = pytest.importorskip("llama_cpp", reason="takes a quarter of an hour to build")
pytest.importorskip("gguf", reason="writes the format")
pytestmark = pytest.mark.slow


@pytest.fixture(params=["llama", "grouped", "qwen3", "grouped qwen3"])
def both(request, tmp_path):
    """Return a model of ours and llama.cpp's reading of its file, with keys and values in float32."""
    loaded = make_loaded(request.param)
    export_gguf(loaded, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=48, type_k=0, type_v=0, logits_all=True, n_threads=1, verbose=False
    )
    yield loaded, theirs
    theirs.close()


def test_llama_cpp_gives_our_ids_logits_and_greedy_tokens(both):
    loaded, theirs = both
    start = loaded.tokenizer.end_of_text_id
    for text in ("the cat", "that rat's  hat 12", CORPUS):
        assert theirs.tokenize(text.encode(), add_bos=True, special=False) == [start, *loaded.tokenizer.encode(text)]
    prompt = theirs.tokenize(b"the cat and", add_bos=True)
    generated = list(itertools.islice(theirs.generate(prompt, temp=0.0, repeat_penalty=1.0), 48 - len(prompt)))
    row = torch.tensor([[*prompt, *generated]])
    with torch.no_grad():
        logits = loaded.model(row, is_causal=True)[0]
    assert generated == logits.argmax(-1)[len(prompt) - 1 : -1].tolist()
    theirs.reset()
    theirs.eval(row[0].tolist())
    assert np.abs(np.array(theirs.scores[: row.shape[1]]) - logits.numpy()).max() < 1e-3
