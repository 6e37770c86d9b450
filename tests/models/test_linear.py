"""The product of every layer takes one of several ways, to the same result."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformerlm.models import linear
from transformerlm.models.linear import Linear, multiply, multiply_transposed

has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def onednn(monkeypatch):
    """Let oneDNN take every product of float32."""
    monkeypatch.setattr(linear, "HAS_FAST_ONEDNN", True)
    monkeypatch.setattr(linear, "LARGE_FOR_FEW_ROWS", 1)
    monkeypatch.setattr(linear, "LARGE_FOR_ONEDNN", 1)


@pytest.fixture
def calls(onednn, monkeypatch):
    """Count the products that it takes."""
    taken, original = [], linear.multiply_by_onednn
    monkeypatch.setattr(linear, "multiply_by_onednn", lambda x, weight: taken.append(1) or original(x, weight))
    return taken


def assert_near(found, expected):
    """Compare tensors up to the rounding of float32."""
    for mine, true in zip(found, expected, strict=True):
        assert mine.shape == true.shape
        torch.testing.assert_close(mine.double(), true.double(), rtol=1e-5, atol=1e-5 * float(true.abs().max()))


def gradients_of(product, x, weight, wanted=(True, True)):
    """Return a product, and the gradients of some function of it."""
    x, weight = (
        tensor.clone().requires_grad_(is_wanted) for tensor, is_wanted in zip((x, weight), wanted, strict=True)
    )
    found = product(x, weight)
    (found * torch.arange(found.numel(), dtype=found.dtype).view_as(found)).sum().backward()
    return found.detach(), x.grad, weight.grad


@has_onednn
@pytest.mark.parametrize("shape", [(10,), (1, 10), (3, 10), (2, 3, 10), (70, 10)])
@pytest.mark.parametrize("out_features", [1, 7, 24])
def test_onednn_gives_torchs_product_and_gradients(calls, shape, out_features):
    x, weight = torch.randn(shape), torch.randn(out_features, 10)
    found = gradients_of(multiply, x, weight)
    assert len(calls) == 3
    assert_near(found, gradients_of(F.linear, x.double(), weight.double()))


@has_onednn
@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_onednn_computes_the_gradients_that_are_wanted(calls, wanted):
    x, weight = torch.randn(3, 10), torch.randn(24, 10)
    found, expected = gradients_of(multiply, x, weight, wanted), gradients_of(F.linear, x, weight, wanted)
    torch.testing.assert_close(found, expected)
    assert len(calls) == 2


@has_onednn
@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 40), m=st.integers(1, 40), n=st.integers(1, 40))
def test_the_gradient_of_a_weight_is_the_same_whichever_matrix_is_smaller(rows, m, n):
    left, right = torch.randn(rows, m), torch.randn(rows, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "HAS_FAST_ONEDNN", True)
        patch.setattr(linear, "LARGE_FOR_ONEDNN", 1)
        found = multiply_transposed(left, right)
    torch.testing.assert_close(found, left.T @ right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 10), (2, 0, 10)])
def test_no_rows_at_all_are_no_trouble(calls, shape):
    found, x_gradient, weight_gradient = gradients_of(multiply, torch.randn(shape), torch.randn(24, 10))
    assert found.shape == (*shape[:-1], 24)
    assert x_gradient.shape == shape
    assert not weight_gradient.any()


@has_onednn
def test_rows_that_do_not_lie_side_by_side_are_multiplied_too(calls):
    x, weight = torch.randn(10, 5).T, torch.randn(10, 24).T
    assert_near(gradients_of(multiply, x, weight), gradients_of(F.linear, x, weight))
    assert len(calls) == 3


@has_onednn
def test_gradients_may_be_differentiated_again(onednn):
    x, weight, outcomes = torch.randn(5, 10), torch.randn(24, 10), []
    for product in (multiply, F.linear):
        x_wanted, weight_wanted = x.clone().requires_grad_(), weight.clone().requires_grad_()
        first = torch.autograd.grad(product(x_wanted, weight_wanted).square().sum(), x_wanted, create_graph=True)
        outcomes.append(torch.autograd.grad(first[0].square().sum(), (x_wanted, weight_wanted)))
    assert_near(*outcomes)


@has_onednn
def test_torchs_functional_gradient_passes_through(onednn):
    x, weight = torch.randn(5, 10), torch.randn(24, 10)
    found, expected = (
        torch.func.grad(lambda matrix, product=product: product(x, matrix).square().sum())(weight)
        for product in (multiply, F.linear)
    )
    assert_near([found], [expected])


def test_features_that_do_not_fit_are_refused_as_torch_does(onednn):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        multiply(torch.randn(3, 10), torch.randn(24, 9))
    assert multiply(torch.randn(3, 0), torch.randn(24, 0)).shape == (3, 24)


def test_other_types_and_autocast_go_torchs_way(calls):
    x, weight = torch.randn(3, 10), torch.randn(24, 10)
    assert torch.equal(multiply(x.double(), weight.double()), F.linear(x.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert multiply(x, weight).dtype == torch.bfloat16
        assert torch.equal(multiply_transposed(x, x), x.T @ x)
    assert calls == []


def test_small_products_go_torchs_way(monkeypatch):
    monkeypatch.setattr(linear, "HAS_FAST_ONEDNN", True)
    taken = []
    monkeypatch.setattr(linear, "multiply_by_onednn", lambda x, weight: taken.append(1) or F.linear(x, weight))
    multiply(torch.randn(2**4 - 1, 2**8), torch.randn(2**8, 2**8))
    assert taken == []
    multiply(torch.randn(2**4, 2**8), torch.randn(2**8, 2**8))
    assert taken == [1]


@pytest.mark.parametrize(
    ("maker", "capability", "is_fast"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
@has_onednn
def test_onednn_is_for_processors_whose_avx512_mkl_leaves_unused(tmp_path, monkeypatch, maker, capability, is_fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    monkeypatch.setattr(linear, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert linear._has_fast_onednn() is is_fast


def test_without_a_description_of_the_processor_its_name_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "CPU_INFO", tmp_path / "missing")
    monkeypatch.setattr(linear.platform, "processor", lambda: "AMD64 Family 25 Model 33 Stepping 0, GenuineIntel")
    assert not linear._has_fast_onednn()


@has_onednn
@pytest.mark.slow
def test_compiled_products_are_the_same(onednn):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(Linear(16, 24), torch.nn.SiLU(), Linear(24, 16))
    x = torch.randn(2, 40, 16)
    outcomes = []
    for run in (layers, torch.compile(layers, fullgraph=True)):
        layers.zero_grad()
        run(x).square().sum().backward()
        outcomes.append([parameter.grad.clone() for parameter in layers.parameters()])
    assert_near(*outcomes)
