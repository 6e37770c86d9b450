"""The compiled kernels for few rows do what torch does."""

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.inference.sampling import invert_distribution
from transformerlm.models import few_rows, linear
from transformerlm.models.few_rows import MAX_ROWS
from transformerlm.models.norm import RMSNorm
from transformerlm.models.rope import RotaryEmbedding, rotate
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM

EPS = 1e-5


@pytest.fixture(scope="module", autouse=True)
def kernels():
    """Have the kernels in these tests, and not in others."""
    assert few_rows.load()
    yield
    few_rows._kernels, few_rows._expected = None, 0


@settings(deadline=None, max_examples=80)
@given(
    rows=st.integers(1, MAX_ROWS),
    width=st.one_of(st.integers(1, 40), st.sampled_from([1023, 1024, 1025, 2049])),
    out_features=st.integers(1, 40),
    threads=st.integers(1, 3),
)
def test_the_product_is_torchs(rows, width, out_features, threads):
    x, weight = torch.randn(rows, width), torch.randn(out_features, width)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = few_rows.multiply(x, weight)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=1e-4, atol=1e-4)


def test_matrices_that_do_not_lie_in_order_are_multiplied_too():
    x, weight = torch.randn(10, 5).T, torch.randn(10, 24).T
    torch.testing.assert_close(few_rows.multiply(x, weight), x @ weight.T)


@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
def test_what_is_not_a_number_stays_in_its_row(strange):
    x, weight = torch.ones(3, 20), torch.ones(8, 20)
    x[1, 7] = strange
    torch.testing.assert_close(few_rows.multiply(x, weight), x @ weight.T, equal_nan=True)
    normalized = few_rows.normalize(x, torch.ones(20), EPS)
    torch.testing.assert_close(normalized, F.rms_norm(x, (20,), torch.ones(20), EPS), equal_nan=True)


def test_threads_of_python_may_multiply_at_once():
    x, weight = torch.randn(4, 64), torch.randn(128, 64)
    expected, wrong = x @ weight.T, []

    def work():
        for _ in range(200):
            if not torch.allclose(few_rows.multiply(x, weight), expected, atol=1e-4):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("shape", [(8,), (1, 1, 8), (2, 3, 8)])
def test_the_norm_is_torchs(shape):
    x, weight = torch.randn(shape), torch.randn(8)
    torch.testing.assert_close(few_rows.normalize(x, weight, EPS), F.rms_norm(x, (8,), weight, EPS))
    turned = torch.randn(8, 3).T
    torch.testing.assert_close(few_rows.normalize(turned, weight, EPS), F.rms_norm(turned, (8,), weight, EPS))


@pytest.mark.parametrize("has_norms", [True, False])
@pytest.mark.parametrize("positions", [None, 5, torch.tensor([[1, 2, 3], [7, 8, 4]])], ids=["begin", "later", "ragged"])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_heads_are_normalized_and_rotated_as_torch_does_it(has_norms, positions, num_kv_heads):
    torch.manual_seed(0)
    heads = torch.randn(2, 3, 4 + 2 * num_kv_heads, 6)
    rotations = RotaryEmbedding(6, 16).tables(3, positions)
    weights = (torch.randn(6), torch.randn(6)) if has_norms else None
    queries, keys, values = heads.transpose(1, 2).split((4, num_kv_heads, num_kv_heads), dim=1)
    if weights is not None:
        queries, keys = (F.rms_norm(x, (6,), weight, EPS) for x, weight in zip((queries, keys), weights, strict=True))
    expected = torch.cat((rotate(queries, *rotations), rotate(keys, *rotations), values), dim=1)
    changed = heads.clone()
    few_rows.rotate_heads(changed, num_kv_heads, rotations, weights, EPS)
    torch.testing.assert_close(changed.transpose(1, 2), expected)


@settings(deadline=None, max_examples=100)
@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 1e-12, 0.3, 1.0, 7.0]), min_size=1, max_size=200).filter(any),
    uniform=st.one_of(st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53), st.just(0.0)),
    copies=st.integers(1, 3),
)
def test_a_draw_inverts_the_distribution(weights, uniform, copies):
    probabilities = torch.tensor(weights)
    uniforms = torch.full((copies,), uniform, dtype=torch.float64)
    tokens = few_rows.invert_distribution(probabilities.expand(copies, -1), uniforms)
    assert tokens.unique().numel() == 1
    token, sums = int(tokens[0]), probabilities.double().cumsum(dim=0)
    assert probabilities[token] > 0
    target, total = uniform * float(sums[-1]), float(sums[-1])
    assert sums[token] >= target - 1e-14 * total
    assert token == 0 or sums[token - 1] <= target + 1e-14 * total


def test_rare_tokens_keep_their_probability():
    uniforms = torch.tensor([[1 - 2e-12], [1 - 5e-13]], dtype=torch.float64)
    probabilities = torch.tensor([1.0, 1e-12]).expand(2, 1, 2)
    assert few_rows.invert_distribution(probabilities, uniforms).tolist() == [[0], [1]]


def test_a_distribution_that_is_none_yields_some_token():
    probabilities = torch.tensor([[torch.nan, torch.nan], [0.0, 0.0]])
    tokens = few_rows.invert_distribution(probabilities, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert set(tokens.tolist()) <= {0, 1}


def test_the_sampler_draws_the_same_with_kernels_and_without(monkeypatch):
    probabilities = torch.randn(7, 5, 300).mul(3).softmax(dim=-1)
    uniforms = torch.rand(7, 5, dtype=torch.float64)
    quick = invert_distribution(probabilities, uniforms)
    monkeypatch.setattr(few_rows, "_kernels", None)
    assert torch.equal(quick, invert_distribution(probabilities, uniforms))


def decode(model, tokens, is_known):
    """Run a row as generation does: a prompt, then a token and a block against the cache."""
    few_rows._kernels = is_known
    cache = model.new_cache(len(tokens), 16)
    with torch.inference_mode():
        logits = [model(tokens[:, :6], is_causal=True, cache=cache)]
        cache.reach(7)
        logits.append(model(tokens[:, 6:7], is_causal=False, positions=6, cache=cache))
        cache.reach(11)
        positions = torch.arange(7, 11).expand(len(tokens), 4)
        logits.append(model(tokens[:, 7:11], is_causal=True, positions=positions, cache=cache))
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize(("qk_norm", "norm_eps"), [(True, 1e-5), (False, 1e-5), (True, 0.0)])
def test_a_model_says_the_same_with_kernels_and_without(monkeypatch, qk_norm, norm_eps):
    monkeypatch.setattr(linear, "LARGE_FOR_FEW_ROWS", 1)
    torch.manual_seed(0)
    model = TransformerLM(ModelShape(50, 16, 32, 2, 4, 2, 48, qk_norm=qk_norm, norm_eps=norm_eps)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, known = torch.randint(50, (2, 11)), few_rows._kernels
    taken = []
    for name in ("multiply", "normalize", "rotate_heads"):
        original = getattr(few_rows, name)
        monkeypatch.setattr(
            few_rows, name, lambda *parts, name=name, original=original: taken.append(name) or original(*parts)
        )
    plain = decode(model, tokens, None)
    assert taken == []
    torch.testing.assert_close(decode(model, tokens, known), plain, rtol=1e-4, atol=1e-4)
    passes, layers = 3, 2
    assert taken.count("multiply") == passes * (4 * layers + 1)
    assert taken.count("normalize") == passes * (2 * layers + 1)
    assert taken.count("rotate_heads") == passes * layers


def test_what_a_hook_sees_is_left_as_it_is():
    torch.manual_seed(0)
    model, seen = TransformerLM(ModelShape(50, 16, 32, 1, 4, 2, 48, qk_norm=True)).eval(), []
    attention = model.blocks[0].attention
    for module in (attention.qkv, attention.query_norm):
        module.register_forward_hook(lambda _, __, output: seen.append((output, output.clone())))
    with torch.inference_mode():
        model(torch.randint(50, (1, 3)), is_causal=True)
    assert len(seen) == 2
    assert all(torch.equal(output, before) for output, before in seen)


def test_features_that_do_not_fit_are_refused():
    with torch.inference_mode():
        with pytest.raises(AssertionError, match="7 features do not fit a matrix with 8 columns"):
            few_rows.multiply(torch.randn(2, 7), torch.randn(4, 8))
        with pytest.raises(AssertionError, match="7 features do not fit 8 weights"):
            few_rows.normalize(torch.randn(2, 7), torch.randn(8), EPS)
        with pytest.raises(AssertionError, match="one number for each"):
            few_rows.invert_distribution(torch.ones(2, 7), torch.ones(3, dtype=torch.float64))
        with pytest.raises(RuntimeError):
            RMSNorm(8, eps=EPS)(torch.randn(2, 7))


@pytest.mark.parametrize("eps", [None, 0, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_of_every_kind_are_torchs(eps, dtype):
    norm, x = RMSNorm(8, eps=eps).to(dtype), torch.randn(3, 8)
    with torch.inference_mode():
        torch.testing.assert_close(norm(x), F.rms_norm(x, (8,), norm.weight.float(), eps))


def test_training_many_rows_and_other_types_go_another_way():
    x = torch.randn(MAX_ROWS, 8)
    assert not few_rows.can_take(x)  # gradients are wanted
    with torch.no_grad():
        assert few_rows.can_take(x)
        assert not few_rows.can_take(torch.randn(MAX_ROWS + 1, 8))
        assert not few_rows.can_take(x.double())
        assert not few_rows.can_take(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not few_rows.can_take(x)


@pytest.mark.slow
def test_a_compiled_model_says_the_same(monkeypatch):
    monkeypatch.setattr(linear, "LARGE_FOR_FEW_ROWS", 1)
    torch.manual_seed(0)
    model = TransformerLM(ModelShape(50, 16, 32, 2, 4, 2, 48)).eval()
    tokens = torch.randint(50, (1, 8))
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(tokens, is_causal=True), model(tokens, is_causal=True))


def run(program, **environment):
    """Run a program in a fresh process and return what it says."""
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_kernels_are_loaded_when_they_are_worth_it():
    program = (
        "import sys\n"
        "from transformerlm.models import few_rows\n"
        "few_rows.expect(few_rows.WORTH_LOADING - 1)\n"
        "print(few_rows.is_loaded(), 'numba' in sys.modules)\n"
        "few_rows.expect(1)\n"
        "print(few_rows.is_loaded())\n"
    )
    assert run(program) == "False False\nTrue\n"


@pytest.mark.parametrize("obstacle", ["sys.modules['numba'] = None", "tempfile.tempdir = '/proc/none'"])
def test_where_kernels_cannot_be_had_everything_goes_torchs_way(tmp_path, obstacle):
    (tmp_path / "file").touch()
    program = (
        "import os, sys, tempfile, torch\n"
        f"{obstacle}\n"
        "from transformerlm.models import few_rows\n"
        "torch.set_grad_enabled(False)\n"
        "print(few_rows.load(), few_rows.load(), few_rows.can_take(torch.ones(1, 2)))\n"
    )
    nowhere = str(tmp_path / "file/no")
    assert run(program, TRANSFORMERLM_CACHE_DIR=nowhere, XDG_CACHE_HOME=nowhere) == "False False False\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_goes_torchs_way():
    program = (
        "import os, torch\n"
        "from transformerlm.models import few_rows\n"
        "from transformerlm.models.norm import RMSNorm\n"
        "few_rows.load()\n"
        "torch.set_grad_enabled(False)\n"
        "if not (child := os.fork()):\n"
        "    RMSNorm(4, eps=1e-5)(torch.ones(1, 4))\n"
        "    os._exit(few_rows.load() or few_rows.can_take(torch.ones(1, 2)))\n"
        "print(os.waitpid(child, 0)[1], few_rows.can_take(torch.ones(1, 2)))\n"
    )
    assert run(program) == "0 True\n"


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays():
    program = (
        "import torch\n"
        "from transformerlm.models import few_rows\n"
        "assert few_rows.load()\n"
        "for rows in (1, 2, 3, 32):\n"
        "    for width in (1, 1024, 1030):\n"
        "        for out in (1, 4, 7):\n"
        "            few_rows.multiply(torch.ones(rows, width), torch.ones(out, width))\n"
        "heads, table = torch.ones(2, 3, 5, 6), torch.ones(1, 1, 3, 6)\n"
        "few_rows.rotate_heads(heads, 1, (table, table), (torch.ones(6), torch.ones(6)), 1e-5)\n"
        "few_rows.rotate_heads(heads, 1, (table, table), None, 1e-5)\n"
        "for size in (1, 64, 65, 130):\n"
        "    few_rows.invert_distribution(torch.ones(3, size), torch.rand(3, dtype=torch.float64))\n"
        "few_rows.normalize(torch.ones(2, 3, 5), torch.ones(5), 1e-5)\n"
    )
    run(program, TRANSFORMERLM_CHECKED="1")
