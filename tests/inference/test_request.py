"""Templates become canvases, and what cannot be asked is refused with a remedy."""

from pathlib import Path

import pytest

from transformerlm.inference.canvas import OPEN, Canvas, split_template
from transformerlm.inference.request import (
    ABILITIES,
    check_beginnings,
    check_lengths,
    check_tokens,
    choose_cache,
    choose_mode,
    encode_prompt,
    encode_template,
    encode_with_gaps,
)
from transformerlm.models.shape import ModelShape
from transformerlm.tokenizer import Tokenizer

SHAPE = ModelShape(4096, 64, 32, 1, 2, 2, 64)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(Path("config/resources/tokenizers/stories_4k"))


def test_a_template_keeps_its_words_and_opens_its_gaps(tokenizer):
    canvas = encode_template(tokenizer, "Once {mask:8} a {mask:4}.")
    words = [tokenizer.encode(part) for part in ("Once", " a", ".")]
    assert list(canvas.tokens) == [
        tokenizer.end_of_text_id, *words[0], *[OPEN] * 8, *words[1], *[OPEN] * 4, *words[2]
    ]  # fmt: skip
    assert canvas.earliest_end == len(canvas.tokens)
    assert (canvas.num_open, canvas.beginning) == (12, 1 + len(words[0]))


def test_a_gap_at_the_end_may_hold_the_end_of_the_text(tokenizer):
    canvas = encode_template(tokenizer, "Once{mask:3}")
    assert canvas.earliest_end == len(canvas.tokens) - 3


def test_other_braces_are_words():
    assert split_template("{a} {mask:2} {mask}") == ["{a} ", 2, " {mask}"]


def test_positions_of_a_prompt_are_counted_behind_its_start(tokenizer):
    tokens = encode_prompt(tokenizer, "Once upon a time")
    canvas = encode_with_gaps(tokenizer, "Once upon a time", [0, 2])
    assert [token == OPEN for token in canvas.tokens] == [False, True, False, True, False]
    assert canvas.tokens[2] == tokens[2]


def test_auto_follows_the_objective():
    assert [choose_mode("auto", objective) for objective in ABILITIES] == [
        "autoregressive", "diffusion", "diffusion", "diffusion"
    ]  # fmt: skip
    assert choose_mode("verified", "joint") == "verified"
    assert [choose_cache("auto", objective) for objective in ABILITIES] == ["none", "none", "block", "none"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t: choose_mode("verified", "masked_diffusion"), "use generation_mode = 'auto' or 'diffusion'"),
        (lambda t: choose_mode("auto", "poetry"), "knows autoregressive, masked_diffusion"),
        (lambda t: choose_cache("block", "masked_diffusion"), "block-causal models only.*'auto' or 'none' or 'prefix'"),
        (lambda t: choose_cache("dual", "block_diffusion"), "bidirectional attention.*'auto' or 'block'"),
        (lambda t: encode_prompt(t, "Once <|mask|> a"), "write it as a template with {mask:8}"),
        (lambda t: encode_template(t, "Once"), "has nothing to fill in; write {mask:8}"),
        (lambda t: encode_template(t, "Once {mask:0}"), "mask at least one token"),
        (lambda t: encode_with_gaps(t, "Once", [0, 5]), r"mask_positions \[5\] lie outside the prompt's 1 tokens"),
        (lambda t: check_tokens([], 4096, 4095), "at least the end-of-text token"),
        (lambda t: check_tokens([1, 4096, -3], 4096, 4095), r"tokens \[4096, -3\] lie outside.*from 0 to 4095"),
        (lambda t: check_tokens([1, 4095], 4096, 4095), "holds the mask token 4095; .* a Canvas with OPEN"),
        (
            lambda t: check_beginnings([Canvas.with_holes([OPEN, 3])], "autoregressive"),
            "the end-of-text token in front",
        ),
        (lambda t: check_lengths([], 65, SHAPE), "exceeds the model's context_length = 64"),
        (lambda t: check_lengths([Canvas.continuing([1] * 9, 8)], 8, SHAPE), "prompt 0 takes 9 tokens.*shorten"),
        (lambda t: check_lengths([Canvas.with_holes([1, OPEN] * 9)], 8, SHAPE), "template 0 takes 18 tokens.*shorten"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(tokenizer, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(tokenizer)
