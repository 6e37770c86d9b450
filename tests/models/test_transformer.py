"""The model against an independent reference, and its backends against each other."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])


def reference_logits(model: TransformerLM, tokens: torch.Tensor, is_causal: bool) -> torch.Tensor:
    """Compute the logits position by position, with complex rotations and nothing of the model but its weights."""
    shape, weights = model.shape, dict(model.named_parameters())
    head_dim, half = shape.head_dim, shape.head_dim // 2

    def norm(x, weight):
        return x / (x.pow(2).mean() + shape.norm_eps).sqrt() * weight

    def turn(x, position):  # rotary embedding as multiplication by a complex phase
        pairs = torch.complex(x[:half], x[half:])
        phases = torch.tensor([position * shape.rope_theta ** (-2 * i / head_dim) for i in range(half)])
        turned = pairs * torch.polar(torch.ones(half, dtype=torch.float64), phases.double())
        return torch.cat((turned.real, turned.imag))

    rows = []
    for row in tokens:
        xs = [weights["embedding.weight"][token] for token in row]
        for layer in range(shape.num_layers):
            w = {name.removeprefix(f"blocks.{layer}."): p for name, p in weights.items() if f"blocks.{layer}." in name}
            queries, keys, values = [], [], []
            for position, x in enumerate(xs):
                heads = (w["attention.qkv.weight"] @ norm(x, w["attention_norm.weight"])).view(-1, head_dim)
                q, k, v = heads.split((shape.num_heads, shape.num_kv_heads, shape.num_kv_heads))
                if shape.qk_norm:
                    q = torch.stack([norm(h, w["attention.query_norm.weight"]) for h in q])
                    k = torch.stack([norm(h, w["attention.key_norm.weight"]) for h in k])
                queries.append([turn(h, position) for h in q])
                keys.append([turn(h, position) for h in k])
                values.append(list(v))
            group = shape.num_heads // shape.num_kv_heads
            mixed_rows = []
            for position in range(len(xs)):
                seen = range(position + 1) if is_causal else range(len(xs))
                mixed = []
                for head in range(shape.num_heads):
                    scores = torch.stack([queries[position][head] @ keys[j][head // group] for j in seen])
                    shares = (scores / math.sqrt(head_dim)).softmax(0)
                    mixed.append(sum(share * values[j][head // group] for share, j in zip(shares, seen, strict=True)))
                mixed_rows.append(w["attention.out.weight"] @ torch.cat(mixed))
            xs = [x + mixed for x, mixed in zip(xs, mixed_rows, strict=True)]
            for index, x in enumerate(xs):
                gate, up = (w["feed_forward.gate_up.weight"] @ norm(x, w["feed_forward_norm.weight"])).chunk(2)
                xs[index] = x + w["feed_forward.down.weight"] @ (gate * torch.sigmoid(gate) * up)
        logits = [weights["head.weight"] @ norm(x, weights["norm.weight"]) for x in xs]
        rows.append(torch.stack(logits)[:, : shape.vocab_size])
    return torch.stack(rows)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"num_kv_heads": 4}, {"rope_theta": 100.0}])
@pytest.mark.parametrize("backend", ["mha", "sdpa"])
def test_forward_equals_independent_reference(make_model, changes, backend, is_causal):
    model = make_model(attention_backend=backend, **changes)
    if changes.get("qk_norm"):
        with torch.no_grad():  # norms start at one: make their weights matter
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5)
    torch.testing.assert_close(model(TOKENS, is_causal=is_causal), reference_logits(model, TOKENS, is_causal))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_backends_agree_in_float32_values_and_gradients(make_model, num_kv_heads, is_causal):
    results = []
    for backend in ("mha", "sdpa"):
        model = make_model(attention_backend=backend, num_kv_heads=num_kv_heads, weight_scale=2.0).float()
        logits = model(TOKENS, is_causal=is_causal)
        F.cross_entropy(logits.flatten(0, 1), TOKENS.flatten()).backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_gradients_match_finite_differences(make_model, backend, is_causal):
    model = make_model(
        attention_backend=backend, d_model=8, d_ff=8, num_layers=1, num_heads=2, num_kv_heads=1, qk_norm=True
    )

    def loss(*parameters):
        named = dict(zip(dict(model.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(model, named, (TOKENS[:1, :4],), {"is_causal": is_causal}).logsumexp(-1).sum()

    assert torch.autograd.gradcheck(
        loss, tuple(p.detach().requires_grad_() for p in model.parameters()), fast_mode=True
    )


def test_causal_model_does_not_see_the_future_and_bidirectional_does(make_model):
    model = make_model()
    changed = TOKENS.clone()
    changed[:, -1] = 0
    causal, other = model(TOKENS, is_causal=True), model(changed, is_causal=True)
    torch.testing.assert_close(causal[:, :-1], other[:, :-1])
    assert not torch.allclose(model(TOKENS, is_causal=False)[:, 0], model(changed, is_causal=False)[:, 0])


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
def test_padding_marked_invalid_changes_nothing(make_model, backend):
    model = make_model(attention_backend=backend)
    padded = F.pad(TOKENS, (0, 3), value=7)
    valid = torch.arange(11).expand(2, 11) < 8
    logits = model(padded, is_causal=False, valid=valid)[:, :8]
    torch.testing.assert_close(logits, model(TOKENS, is_causal=False))


def test_selected_positions_equal_rows_of_the_full_head(make_model):
    model = make_model()
    selected = torch.tensor([0, 5, 9, 15])
    full = model(TOKENS, is_causal=False).flatten(0, 1)
    torch.testing.assert_close(model(TOKENS, is_causal=False, selected=selected), full[selected])


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
def test_cached_decoding_equals_the_uncached_forward(make_model, backend):
    model = make_model(attention_backend=backend, qk_norm=True)
    full = model(TOKENS, is_causal=True)
    cache = model.new_cache(batch=2, capacity=8)
    positions = torch.arange(8).expand(2, 8)
    pieces = [model(TOKENS[:, :3], is_causal=True, cache=cache)]
    for start, end in ((3, 4), (4, 7), (7, 8)):
        cache.reach(end)
        piece = slice(start, end)
        pieces.append(model(TOKENS[:, piece], is_causal=True, positions=positions[:, piece], cache=cache))
    torch.testing.assert_close(torch.cat(pieces, dim=1), full)


@pytest.mark.parametrize("backend", ["mha", "sdpa"])
def test_block_causal_attention_lies_between_causal_and_full(make_model, backend):
    model, places = make_model(attention_backend=backend), torch.arange(8).expand(2, 8)
    for block, is_causal in ((1, True), (8, False)):
        ends = places // block * block + block - 1
        torch.testing.assert_close(
            model(TOKENS, is_causal=False, last_visible=ends), model(TOKENS, is_causal=is_causal)
        )
    changed = TOKENS.clone()
    changed[:, 4:] = 0
    ends = places // 4 * 4 + 3
    ours, other = (model(tokens, is_causal=False, last_visible=ends) for tokens in (TOKENS, changed))
    torch.testing.assert_close(ours[:, :4], other[:, :4])
    alone = model(TOKENS[:, :4], is_causal=False)
    torch.testing.assert_close(ours[:, :4], alone)


def test_a_pass_over_some_rows_leaves_the_others_alone(make_model):
    model = make_model()
    full = model(TOKENS, is_causal=True)
    cache = model.new_cache(batch=3, capacity=8)
    rows, positions = torch.tensor([2, 0]), torch.arange(5, 8).expand(2, 3)
    model(TOKENS[:, :5], is_causal=True, cache=cache.of_rows(rows))
    cache.reach(8)
    rest = model(TOKENS[:, 5:], is_causal=True, positions=positions, cache=cache.of_rows(rows))
    torch.testing.assert_close(rest, full[:, 5:])
    assert not any(keys[1].any() for keys in cache.keys)


def test_vocabulary_is_padded_inside_only():
    model = TransformerLM(ModelShape(100, 8, 16, 1, 2, 2, 16))
    assert model.embedding.weight.shape == (128, 16)
    assert model(TOKENS, is_causal=True).shape == (2, 8, 100)


def test_tied_embeddings_are_one_parameter(make_model):
    tied, untied = make_model(tie_embeddings=True), make_model()
    assert tied.head.weight is tied.embedding.weight
    assert untied.parameter_count() - tied.parameter_count() == 64 * 32


def test_residual_outputs_start_smaller_with_depth():
    model = TransformerLM(ModelShape(64, 8, 128, 8, 4, 4, 256))
    assert model.blocks[3].attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert model.blocks[3].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.slow
def test_flops_count_every_matrix_product_the_profiler_sees():
    model = TransformerLM(ModelShape(64, 32, 64, 3, 4, 2, 96, attention_backend="mha"))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros((2, 32), dtype=torch.int64), is_causal=False)
    counted = counter.get_total_flops()
    assert model.flops_per_token(32, is_causal=False, is_training=False) * 2 * 32 == counted
    causal = model.flops_per_token(32, is_causal=True, is_training=False)
    assert model.flops_per_token(32, is_causal=False, is_training=False) - causal == 4 * 3 * 64 * (32 - 33 / 2)


def test_kv_bytes_are_those_of_the_cache(make_model):
    model = make_model()
    cache = model.new_cache(batch=3, capacity=10)
    assert cache.num_bytes == 3 * 10 * model.kv_bytes_per_token()


def test_too_long_input_is_refused(make_model):
    with pytest.raises(ValueError, match=r"17 tokens exceed model\.context_length = 16"):
        make_model()(torch.zeros((1, 17), dtype=torch.int64), is_causal=True)


@pytest.mark.parametrize("changes", [{"num_heads": 5}, {"num_kv_heads": 3}])
def test_heads_that_do_not_divide_are_refused(make_model, changes):
    with pytest.raises(ValueError, match="must divide"):
        make_model(**changes)


def test_autocast_raises_no_warning_and_stays_close(make_model, recwarn):
    model = make_model(qk_norm=True, weight_scale=2.0).float()
    exact = model(TOKENS, is_causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model(TOKENS, is_causal=True)
    assert not recwarn.list
    torch.testing.assert_close(narrow.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_every_parameter_has_a_role(make_model, tie_embeddings):
    model = make_model(tie_embeddings=tie_embeddings, qk_norm=True)
    roles = {name: model.role_of(name, parameter) for name, parameter in model.named_parameters()}
    assert roles.pop("embedding.weight") == "embedding"
    assert roles.pop("head.weight", "tied") == ("tied" if tie_embeddings else "head")
    norms = {name for name in roles if name.endswith("norm.weight")}
    assert {roles[name] for name in norms} == {"vector"}
    assert {role for name, role in roles.items() if name not in norms} == {"hidden"}
    assert len(norms) == 4 * 2 + 1
