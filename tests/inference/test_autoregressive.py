"""Autoregressive decoding: cached equals uncached, batched equals single, and nothing depends on when one looks."""

import pytest
import torch

from tests.inference.helpers import END, MASK, PROMPTS, Recorder, autoregress, continuing, seeds_of, without_end
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.likelihood.exact import autoregressive_nats

GREEDY = SamplingSettings(0.0)


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
@pytest.mark.parametrize("prompts", [PROMPTS, [[3, 1], [4, 1]]])
def test_cached_greedy_decoding_equals_recomputing_everything(make_model, backend, prompts):
    model = make_model(attention_backend=backend)
    decoded = autoregress(model, without_end(prompts), GREEDY)
    for prompt, row in zip(prompts, decoded.rows, strict=True):
        expected = list(prompt)
        while len(expected) < 12:
            logits = model(torch.tensor([expected]), is_causal=True)[0, -1]
            logits[[END, MASK]] = -torch.inf
            expected.append(logits.argmax().item())
        assert row == expected


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSettings(), SamplingSettings(0.8, repetition_penalty=1.5)])
def test_rows_are_what_they_would_be_alone(make_model, sampling):
    model, seeds = make_model(), seeds_of(3)
    canvases = [*continuing(PROMPTS[:2]), Canvas.with_holes([5, OPEN, 2, OPEN, OPEN, 5, OPEN])]
    together = autoregress(model, canvases, sampling, seeds)
    for index, canvas in enumerate(canvases):
        alone = autoregress(model, [canvas], sampling, [seeds[index]])
        assert alone.rows == [together.rows[index]]
        assert alone.log_probs[0] == pytest.approx(together.log_probs[index])


@pytest.mark.parametrize("look_every", [2, 5, 100])
def test_texts_do_not_depend_on_how_often_the_host_looks(make_model, look_every):
    model, seen, other = make_model(weight_scale=4.0), Recorder(), Recorder()
    often = autoregress(model, continuing(PROMPTS), listener=seen, look_every=1)
    seldom = autoregress(model, continuing(PROMPTS), listener=other, look_every=look_every)
    assert seldom.rows == often.rows
    assert sorted(map(str, other.steps)) == sorted(map(str, seen.steps))


def test_log_probabilities_add_up_to_the_likelihood(make_model):
    model = make_model()
    decoded = autoregress(model, continuing([[3, 1, 4]]), mask_id=None, end_id=100, sampling=SamplingSettings(0.7))
    nats = autoregressive_nats(model, torch.tensor(decoded.rows))
    assert decoded.log_probs[0][3:] == pytest.approx((-nats[0, 2:]).tolist())
    assert decoded.log_probs[0][:3] == [0.0, 0.0, 0.0]


def test_sampled_frequencies_follow_the_model(make_model):
    model, count = make_model(weight_scale=4.0), 4000
    decoded = autoregress(model, continuing([[3, 1]] * count, 3), seeds=range(count), mask_id=None)
    counts = torch.bincount(torch.tensor([row[2] for row in decoded.rows]), minlength=11).double()
    expected = model(torch.tensor([[3, 1]]), is_causal=True)[0, -1].softmax(-1).detach() * count
    assert ((counts - expected) ** 2 / expected).sum() < 29.6  # 10 degrees of freedom, p = 0.001


def test_a_row_ends_where_the_listener_says_or_at_its_end_token(make_model):
    seen = Recorder()

    def stop(changes):
        seen(changes)
        return [change.row for change in changes if change.row == 1 and change.step == 1]

    decoded = autoregress(make_model(), without_end(PROMPTS), listener=stop, look_every=4)
    assert [len(row) for row in decoded.rows] == [12, 3, 12]
    assert [sum(step[0].row == row for step in seen.steps) for row in range(3)] == [9, 2, 7]
    ended = autoregress(make_model(weight_scale=1.0), continuing([[1]] * 20), seeds=range(20))
    short = [row for row in ended.rows if len(row) < 12]
    assert short
    assert all(row[-1] == END and END not in row[:-1] for row in short)


def test_given_tokens_are_taken_as_they_come(make_model):
    model = make_model()
    decoded = autoregress(model, [Canvas.with_holes([3, OPEN, END, OPEN, 4, OPEN])], GREEDY)
    (row,) = decoded.rows
    assert (row[2], row[4]) == (END, 4)
    logits = model(torch.tensor([row[:3]]), is_causal=True)[0, -1]
    logits[[MASK, END]] = -torch.inf
    assert row[3] == logits.argmax().item()
    assert END not in (row[1], row[3])


def test_a_penalty_avoids_what_was_written(make_model):
    plain = autoregress(make_model(), without_end([[3, 1]], 16), GREEDY)
    varied = autoregress(make_model(), without_end([[3, 1]], 16), SamplingSettings(0.0, repetition_penalty=1e6))
    assert len(set(varied.rows[0])) > len(set(plain.rows[0]))


def test_cost_counts_prompt_and_tokens_once(make_model):
    decoded = autoregress(make_model(), without_end([[3, 1, 4]] * 2))
    assert (decoded.cost.passes, decoded.cost.token_forwards) == (1 + 8, 2 * (3 + 8))


@pytest.mark.slow
def test_the_compiled_step_writes_the_same_texts(make_model):
    model = make_model()
    plain = autoregress(model, continuing(PROMPTS), look_every=4)
    compiled = autoregress(model, continuing(PROMPTS), look_every=4, is_compiled=True)
    assert compiled.rows == plain.rows
