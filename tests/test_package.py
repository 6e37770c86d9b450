"""What a notebook user imports."""

import subprocess
import sys

import pytest

import transformerlm


def test_public_names_are_there():
    from transformerlm import Predictor, Tokenizer, TransformerLM

    assert {Predictor.__name__, Tokenizer.__name__, TransformerLM.__name__} <= set(transformerlm.__all__)
    assert all(getattr(transformerlm, name).__name__ == name for name in transformerlm.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        transformerlm.Nothing  # noqa: B018


def test_the_tokenizer_does_not_load_torch():
    code = "import sys; from transformerlm import Tokenizer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
