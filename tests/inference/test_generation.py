"""Decoding: cached equals uncached, batched equals single, diffusion follows its plan."""

import pytest
import torch

from transformerlm.inference.autoregressive import generate_autoregressive
from transformerlm.inference.diffusion import DiffusionSettings, generate_diffusion
from transformerlm.inference.sampling import SamplingSettings, row_generators, row_seed

MASK, END = 10, 9
PROMPTS = [[3, 1, 4], [1], [5, 6, 2, 6, 5]]


def never_stop(row, token):
    return False


def run_autoregressive(model, prompts, settings, generators, on_token=never_stop):
    return generate_autoregressive(model, prompts, 12, settings, generators, on_token)


def run_diffusion(model, prompts, sampling, generators, steps=10, **changes):
    settings = DiffusionSettings(**{"mask_id": MASK, "end_id": END, "steps": steps, "block_length": 4, **changes})
    seen = []
    rows, evaluations = generate_diffusion(model, prompts, 12, settings, sampling, generators, seen.append)
    return rows, evaluations, seen


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
def test_cached_greedy_decoding_equals_recomputing_everything(make_model, backend):
    model = make_model(attention_backend=backend)
    rows, evaluations = run_autoregressive(model, PROMPTS, SamplingSettings(0.0), row_generators(0, 3))
    for prompt, row in zip(PROMPTS, rows, strict=True):
        expected = list(prompt)
        while len(expected) < 12:
            expected.append(model(torch.tensor([expected]), is_causal=True)[0, -1].argmax().item())
        assert row == expected
    assert evaluations == 11  # the shortest prompt has one token


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_autoregressive_rows_are_what_they_would_be_alone(make_model, temperature):
    model, settings = make_model(), SamplingSettings(temperature)
    together, _ = run_autoregressive(model, PROMPTS, settings, row_generators(7, 3))
    for index, prompt in enumerate(PROMPTS):
        generator = torch.Generator().manual_seed(row_seed(7, index))
        assert run_autoregressive(model, [prompt], settings, [generator])[0] == [together[index]]


def test_sampled_frequencies_follow_the_model(make_model):
    model, count = make_model(weight_scale=4.0), 4000
    rows, _ = generate_autoregressive(
        model, [[3, 1]] * count, 3, SamplingSettings(), row_generators(1, count), never_stop
    )
    counts = torch.bincount(torch.tensor([row[2] for row in rows]), minlength=11).double()
    expected = model(torch.tensor([[3, 1]]), is_causal=True)[0, -1].softmax(-1).detach() * count
    assert ((counts - expected) ** 2 / expected).sum() < 29.6  # 10 degrees of freedom, p = 0.001


def test_a_row_ends_where_the_callback_says(make_model):
    seen = {0: 0, 1: 0, 2: 0}

    def stop(row, token):
        seen[row] += 1
        return row == 1 and seen[row] == 2

    rows, _ = run_autoregressive(make_model(), PROMPTS, SamplingSettings(), row_generators(0, 3), stop)
    assert [len(row) for row in rows] == [12, 3, 12]
    assert seen == {0: 9, 1: 2, 2: 7}


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_diffusion_rows_are_what_they_would_be_alone(make_model, remasking, temperature):
    model, sampling = make_model(), SamplingSettings(temperature)
    together, _, _ = run_diffusion(model, PROMPTS, sampling, row_generators(7, 3), remasking=remasking)
    for index, prompt in enumerate(PROMPTS):
        generator = torch.Generator().manual_seed(row_seed(7, index))
        alone, _, _ = run_diffusion(model, [prompt], sampling, [generator], remasking=remasking)
        assert alone[0] == together[index]


def test_blocks_are_filled_left_to_right_by_the_planned_quotas(make_model):
    generators, no_end = row_generators(0, 1), -1
    rows, evaluations, seen = run_diffusion(
        make_model(), [[3, 1, 4, 1]], SamplingSettings(), generators, steps=6, end_id=no_end
    )
    open_first = [int((tokens[0, 4:8] == MASK).sum()) for tokens in seen]
    open_second = [int((tokens[0, 8:] == MASK).sum()) for tokens in seen]
    assert open_first == [2, 1, 0, 0, 0, 0]
    assert open_second == [4, 4, 4, 2, 1, 0]
    assert evaluations == 6
    assert rows[0] == seen[-1][0].tolist()


def test_greedy_low_confidence_equals_a_plain_loop(make_model):
    model = make_model()
    rows, _, _ = run_diffusion(model, [[3, 1, 4, 1]], SamplingSettings(0.0), row_generators(0, 1), 8)
    tokens = torch.tensor([3, 1, 4, 1] + [MASK] * 8)
    for start in (4, 8):
        for _ in range(4):
            logits = model(tokens[None], is_causal=False)[0].detach()
            logits[:, MASK] = -torch.inf
            best, choice = logits.softmax(-1).max(-1)
            open_positions = [i for i in range(start, start + 4) if tokens[i] == MASK]
            position = max(open_positions, key=lambda i: best[i])
            tokens[position] = choice[position]
    expected, got = tokens.tolist(), rows[0]
    settled = expected.index(END, 4) if END in expected[4:] else len(expected)
    assert got[:settled] == expected[:settled]


def test_a_row_settled_up_to_its_end_stops_early(make_model):
    model = make_model()
    with torch.no_grad():  # make the end-of-text token certain everywhere
        model.head.weight.zero_()
        model.norm.weight.fill_(1.0)
        model.head.weight[END] = 1.0
        model.embedding.weight.fill_(1.0)
    rows, evaluations, _ = run_diffusion(model, [[3, 1, 4, 1]], SamplingSettings(0.0), row_generators(0, 1), 8)
    assert rows[0][4] == END
    assert evaluations < 8


def test_guidance_extrapolates_from_the_promptless_prediction(make_model):
    model, prompt = make_model(), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    rows, _, _ = run_diffusion(model, [prompt], SamplingSettings(0.0), row_generators(0, 1), cfg_scale=1.5)
    conditional = model(torch.tensor([[*prompt, MASK]]), is_causal=False)[0, -1]
    unconditional = model(torch.tensor([[MASK] * 12]), is_causal=False)[0, -1]
    guided = unconditional + 2.5 * (conditional - unconditional)
    guided[MASK] = -torch.inf
    assert rows[0][-1] == guided.argmax().item()


def test_a_full_prompt_needs_no_step(make_model):
    rows, _, _ = run_diffusion(make_model(), [[1] * 12, [3]], SamplingSettings(), row_generators(0, 2), 11)
    assert rows[0] == [1] * 12
    assert MASK not in rows[1][: rows[1].index(END) if END in rows[1] else None]
