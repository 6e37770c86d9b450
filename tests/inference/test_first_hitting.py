"""First-hitting sampling draws from the any-order model exactly; a race in float32 does not."""

import math
from itertools import product

import pytest
import torch

from tests.inference.helpers import diffuse
from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.likelihood.exact import any_order_likelihood

VOCAB, LENGTH, MASK = 3, 3, 3
SEQUENCES = list(product(range(VOCAB), repeat=LENGTH))
LIMIT = 54.1  # 26 degrees of freedom, p = 0.001
ROWS = 20_000


@pytest.fixture
def toy(make_model):
    return make_model(vocab_size=4, num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, weight_scale=6.0)


def chi_square(rows, model):
    exact = [math.exp(-any_order_likelihood(model, torch.tensor(each), MASK).nll) for each in SEQUENCES]
    assert sum(exact) == pytest.approx(1)
    assert max(exact) < 0.5
    counts = dict.fromkeys(SEQUENCES, 0)
    for row in rows:
        counts[tuple(row)] += 1
    return sum((counts[each] - len(rows) * p) ** 2 / (len(rows) * p) for each, p in zip(SEQUENCES, exact, strict=True))


@pytest.mark.slow
def test_first_hitting_frequencies_are_those_of_the_exact_likelihood(toy):
    # No token ends a text here: the end's id is the mask's, which is never drawn.
    decoded = diffuse(
        toy,
        [Canvas.with_holes([OPEN] * LENGTH)] * ROWS,
        policy="first_hitting",
        mask_id=MASK,
        end_id=MASK,
        seeds=range(ROWS),
    )
    assert chi_square(decoded.rows, toy) < LIMIT


def race(model, dtype, num_rows, hazard=1e-7):
    """Unmask by a race of exponential clocks at every tiny step: each token's against the mask's own.

    Token v of a masked position wins if E_v / (hazard p_v) < E_mask / (1 - hazard), E = -log(uniform). Steps at which
    no token's clock is below `reach` change nothing and are skipped; at the others one clock is uniform below it.
    Uniform numbers of float32 are multiples of 2^-24, hence so are its small clocks.
    """
    reach, rng = 20 * hazard, torch.Generator().manual_seed(0)
    states = torch.tensor(list(product(range(VOCAB + 1), repeat=LENGTH)))
    with torch.no_grad():
        p = model(states, is_causal=False)[..., :VOCAB].softmax(-1).to(dtype)  # [state, position, token]
    tokens, rows = torch.full((num_rows, LENGTH), MASK), torch.arange(num_rows)
    place_values = (VOCAB + 1) ** torch.arange(LENGTH - 1, -1, -1)
    while (tokens == MASK).any():
        position = torch.randint(LENGTH, (num_rows,), generator=rng)
        token = torch.randint(VOCAB, (num_rows,), generator=rng)
        gap = reach * torch.rand(num_rows, dtype=torch.float64, generator=rng)
        if dtype == torch.float32:
            gap = (gap * 2**24).ceil() / 2**24
        clock = -(1 - gap.to(dtype)).log()
        mask_clock = -torch.rand(num_rows, dtype=dtype, generator=rng).log()
        rate = hazard * p[(tokens * place_values).sum(1), position, token]
        wins = (clock * (1 - hazard) < rate * mask_clock) & (tokens[rows, position] == MASK)
        tokens[rows[wins], position[wins]] = token[wins]
    return tokens.tolist()


@pytest.mark.slow
def test_a_joint_race_is_right_in_float64_and_wrong_in_float32(toy):
    drawn = torch.rand(100_000) * 2**24
    assert torch.equal(drawn, drawn.round()), "float32 numbers are no multiples of 2^-24 any more"
    assert chi_square(race(toy, torch.float64, 6000), toy) < LIMIT
    assert chi_square(race(toy, torch.float32, 6000), toy) > 2 * LIMIT
