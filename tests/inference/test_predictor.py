"""The predictor tells the kernels for few rows how much there is to do."""

from pathlib import Path

import pytest

from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.models import few_rows
from transformerlm.tokenizer import Tokenizer


@pytest.fixture
def predictor(make_model):
    tokenizer = Tokenizer.load(Path("config/resources/tokenizers/stories_4k"))
    return Predictor(LoadedModel(make_model(vocab_size=4096).float(), tokenizer, "autoregressive", None))


@pytest.fixture
def expected(monkeypatch):
    amounts = []
    monkeypatch.setattr(few_rows, "expect", amounts.append)
    return amounts


def test_generation_announces_its_multiplications(predictor, expected):
    predictor.generate([[1, 2, 3], [1]], GenerationSettings(total_length=10))
    assert expected == [(7 + 9) * predictor.model.parameter_count()]


def test_weights_that_the_kernels_cannot_read_announce_nothing(predictor, expected):
    predictor.model.double()
    predictor.generate([[1, 2, 3]], GenerationSettings(total_length=10))
    assert expected == []


@pytest.mark.slow
def test_a_compiled_step_has_the_kernels_from_the_beginning(predictor, expected):
    predictor.generate([[1]], GenerationSettings(total_length=4, is_compiled=True))
    assert expected == [few_rows.WORTH_LOADING]
