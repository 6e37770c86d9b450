"""Denoising: the plan is followed, every row is what it would be alone, and caches that claim to be exact are."""

import pytest
import torch

from tests.inference.helpers import (
    END,
    MASK,
    PROMPTS,
    Recorder,
    continuing,
    denoised_by_hand,
    diffuse,
    seeds_of,
    without_end,
)
from transformerlm.inference import denoisers
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.plan import Policy
from transformerlm.inference.sampling import SamplingSettings

GREEDY = SamplingSettings(0.0)
POLICIES = [
    Policy("random"),
    Policy("low_confidence"),
    Policy("margin"),
    Policy("entropy"),
    Policy("threshold", threshold=0.4),
    Policy("factor", factor=1.2),
    Policy("entropy_bound", entropy_bound=1.0),
    Policy("first_hitting"),
    Policy("remdm", remask_share=0.3),
    Policy("low_confidence", is_end_last=True),
]
HOLES = Canvas.with_holes([2, OPEN, OPEN, 7, OPEN, 5, 5, 5, 5, OPEN, OPEN, 6])


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "block"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_rows_are_what_they_would_be_alone(make_model, policy, cache):
    model, seeds = make_model(weight_scale=4.0), seeds_of(4)
    canvases = [*continuing(PROMPTS), HOLES]
    options = {"policy": policy, "cache": cache, "is_block_causal": cache == "block", "steps": 8}
    together = diffuse(model, canvases, seeds=seeds, **options)
    for index, canvas in enumerate(canvases):
        alone = diffuse(model, [canvas], seeds=[seeds[index]], **options)
        assert alone.rows == [together.rows[index]]
        assert alone.log_probs[0] == pytest.approx(together.log_probs[index])


@pytest.mark.parametrize("changes", [{"cfg_scale": 1.0}, {"sampling": SamplingSettings(0.8, repetition_penalty=2.0)}])
def test_guidance_and_penalties_look_at_no_neighbour(make_model, changes):
    model, seeds = make_model(weight_scale=4.0), seeds_of(4)
    canvases = [*without_end(PROMPTS, 10), HOLES]
    together = diffuse(model, canvases, seeds=seeds, **changes)
    alone = [diffuse(model, [canvas], seeds=[seed], **changes) for canvas, seed in zip(canvases, seeds, strict=True)]
    assert [each.rows[0] for each in alone] == together.rows


@pytest.mark.parametrize("merge_positions", [0, 6, 10**6])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("policy", [Policy("low_confidence"), Policy("threshold", threshold=0.4)])
def test_the_block_cache_is_exact_for_block_causal_attention(
    make_model, monkeypatch, policy, guidance, merge_positions
):
    monkeypatch.setattr(denoisers, "MERGE_POSITIONS", merge_positions)
    model, canvases = make_model(), [*without_end(PROMPTS, 15), HOLES]
    options = {"policy": policy, "is_block_causal": True, "cfg_scale": guidance}
    exact = diffuse(model, canvases, cache="none", **options)
    cached = diffuse(model, canvases, cache="block", **options)
    assert cached.rows == exact.rows
    assert [p for row in cached.log_probs for p in row] == pytest.approx([p for row in exact.log_probs for p in row])
    assert cached.cost.token_forwards < exact.cost.token_forwards


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_caches_of_a_single_layer_are_exact(make_model, cache):
    # A key of the first layer depends on its own token only, so nothing that is kept goes stale.
    model, canvases = make_model(num_layers=1), [*without_end(PROMPTS), HOLES]
    exact, cached = diffuse(model, canvases), diffuse(model, canvases, cache=cache)
    assert cached.rows == exact.rows
    assert [p for row in cached.log_probs for p in row] == pytest.approx([p for row in exact.log_probs for p in row])
    assert cached.cost.token_forwards < exact.cost.token_forwards


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_caches_of_deeper_models_are_exact_at_the_first_step_of_a_block_only(make_model, cache):
    model, canvases = make_model(), without_end([[3, 1, 4, 1]])
    exact, cached = (diffuse(model, canvases, GREEDY, cache=kind, steps=2) for kind in ("none", cache))
    assert cached.rows == exact.rows  # a step per block: refreshed at each
    exact, cached = (diffuse(model, canvases, GREEDY, cache=kind).log_probs[0] for kind in ("none", cache))
    assert cached != pytest.approx(exact)


def test_one_block_over_everything_is_masked_diffusion(make_model):
    model, canvases = make_model(), without_end(PROMPTS)
    plain = diffuse(model, canvases, GREEDY, block_length=12)
    block = diffuse(model, canvases, GREEDY, block_length=12, is_block_causal=True, cache="block")
    assert block.rows == plain.rows
    assert [p for row in block.log_probs for p in row] == pytest.approx([p for row in plain.log_probs for p in row])


def test_blocks_of_one_follow_the_chain_rule(make_model):
    model = make_model()
    decoded = diffuse(model, without_end([[3, 1, 4]]), block_length=1, is_block_causal=True, cache="block")
    (row,) = decoded.rows
    for position in range(3, 12):
        ends = torch.arange(position + 1)[None]
        logits = model(torch.tensor([[*row[:position], MASK]]), is_causal=False, last_visible=ends)[0, -1].detach()
        logits[[MASK, END]] = -torch.inf
        assert decoded.log_probs[0][position] == pytest.approx(logits.log_softmax(-1)[row[position]].item())


def test_a_threshold_nothing_reaches_takes_one_token_per_step(make_model):
    model, canvases = make_model(), continuing(PROMPTS)
    one_by_one = diffuse(model, canvases)
    assert diffuse(model, canvases, policy=Policy("threshold", threshold=1.1)).rows == one_by_one.rows
    assert diffuse(model, canvases, policy=Policy("factor", factor=0.0)).rows == one_by_one.rows


def test_a_threshold_everything_reaches_takes_one_step_per_block(make_model):
    decoded = diffuse(make_model(), without_end([[3, 1, 4, 1]]), policy=Policy("threshold", threshold=0.0))
    assert decoded.cost.row_passes == 2


def test_blocks_are_filled_left_to_right_by_the_planned_quotas(make_model):
    seen = Recorder()
    decoded = diffuse(make_model(), without_end([[3, 1, 4, 1]]), listener=seen, steps=6)
    assert [len(step) for step in seen.steps] == [2, 1, 1, 2, 1, 1]
    assert [{change.position // 4 for change in step} for step in seen.steps] == [{1}] * 3 + [{2}] * 3
    assert decoded.cost.passes == 6
    replayed = [3, 1, 4, 1] + [OPEN] * 8
    for change in (change for step in seen.steps for change in step):
        replayed[change.position] = change.token
    assert decoded.rows[0] == replayed


def test_greedy_low_confidence_equals_a_plain_loop(make_model):
    model = make_model()
    decoded = diffuse(model, without_end([[3, 1, 4, 1]]), GREEDY)
    tokens = [3, 1, 4, 1] + [MASK] * 8
    for start in (4, 8):
        for _ in range(4):
            logits = denoised_by_hand(model, tokens)
            logits[:, END] = -torch.inf
            best, choice = logits.softmax(-1).max(-1)
            open_positions = [i for i in range(start, start + 4) if tokens[i] == MASK]
            position = max(open_positions, key=lambda i: best[i])
            tokens[position] = choice[position].item()
    assert decoded.rows[0] == tokens


def certain_of_the_end(make_model):
    model = make_model()
    with torch.no_grad():
        model.head.weight.zero_()
        model.norm.weight.fill_(1.0)
        model.head.weight[END] = 1.0
        model.embedding.weight.fill_(1.0)
    return model


def test_a_row_settled_up_to_its_end_stops_early(make_model):
    decoded = diffuse(certain_of_the_end(make_model), continuing([[3, 1, 4, 1]]), GREEDY)
    assert decoded.rows[0][4] == END
    assert decoded.cost.passes < 8


def test_the_end_comes_no_earlier_than_asked_and_last_if_asked(make_model):
    model, seen = certain_of_the_end(make_model), Recorder()
    decoded = diffuse(model, [Canvas.continuing([3, 1, 4, 1], 12, min_new_tokens=3)], GREEDY)
    assert decoded.rows[0].index(END) == 7
    canvas = [Canvas.continuing([3, 1, 4, 1], 12, min_new_tokens=3)]
    diffuse(model, canvas, GREEDY, listener=seen, policy=Policy(is_end_last=True))
    assert [change.token == END for step in seen.steps for change in step] == [False] * 3 + [True]


def test_guidance_extrapolates_from_the_promptless_prediction(make_model):
    model, prompt = make_model(), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    decoded = diffuse(model, continuing([prompt]), GREEDY, cfg_scale=1.5)
    conditional = denoised_by_hand(model, [*prompt, MASK])[-1]
    unconditional = denoised_by_hand(model, [MASK] * 12)[-1]
    guided = unconditional + 2.5 * (conditional - unconditional)
    guided[MASK] = -torch.inf
    assert decoded.rows[0][-1] == guided.argmax().item()


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_what_was_given_stays(make_model, cache):
    decoded = diffuse(make_model(), [HOLES, *continuing([[1] * 12])], cache=cache)
    for row, canvas in zip(decoded.rows, (HOLES.tokens, [1] * 12), strict=True):
        assert all(given in (OPEN, token) for token, given in zip(row, canvas, strict=True))
    assert MASK not in decoded.rows[0]
    assert END not in decoded.rows[0]


def test_remasked_tokens_are_found_again(make_model):
    seen = Recorder()
    policy = Policy("remdm", remask_share=0.5)
    decoded = diffuse(make_model(), without_end([[3, 1, 4, 1]] * 4), policy=policy, steps=24, listener=seen)
    changes = [change for step in seen.steps for change in step]
    assert sum(change.token == MASK for change in changes) > 5
    assert all(OPEN not in row for row in decoded.rows)
    assert all(row[:4] == [3, 1, 4, 1] for row in decoded.rows)
    assert decoded.cost.row_passes == 4 * 24


def test_a_penalty_avoids_what_the_row_holds(make_model):
    plain = diffuse(make_model(), without_end([[3, 1]], 16), GREEDY)
    varied = diffuse(make_model(), without_end([[3, 1]], 16), SamplingSettings(0.0, repetition_penalty=1e6))
    assert len(set(varied.rows[0])) > len(set(plain.rows[0]))


def test_first_hitting_times_fall_within_each_block(make_model):
    seen = Recorder()
    diffuse(make_model(), without_end([[3, 1, 4, 1]]), policy="first_hitting", listener=seen)
    times = [change.time for step in seen.steps for change in step]
    assert times[:4] == sorted(times[:4], reverse=True)
    assert times[4:] == sorted(times[4:], reverse=True)
    assert all(0 < time < 1 for time in times)
