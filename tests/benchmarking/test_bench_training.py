"""transformerlm-bench-train: what it prints, and that its contenders do the same work."""

import json

import pytest
import torch

from benchmarking.bench_training import Entry, compare
from benchmarking.memory_of_step import held_bytes, memory_of_step
from benchmarking.plain_transformer import PlainTransformer
from benchmarking.step_times import StepTimer, StepTimes
from benchmarking.training_contenders import OurLoop, PlainLoop, build_plain
from benchmarking.training_workload import ADAMW, SIZES, RandomRows, Workload
from cli import bench_train
from trainkit.training.optim import build_optimizer
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.autoregressive import Autoregressive

SHAPE = ModelShape(64, 16, 32, 2, 4, 2, 48)
QUICK = ["rounds=2", "steps_per_round=2", "warmup_steps=0", "batch_size=1", "context_length=8", "vocab_size=64"]
QUICK += ["device=cpu"]


@pytest.fixture
def workload():
    return Workload(SHAPE, 2, torch.device("cpu"), torch.float32)


@pytest.fixture
def bench(capsys, tmp_path, monkeypatch):
    """Run the command on the shipped configuration, made small, in an empty folder."""

    def run(*arguments):
        for key in QUICK:
            arguments += ("--set", f"benchmark.{key}")
        resource = str(bench_train.__file__).replace("cli/bench_train.py", "config/resources/bench_train.toml")
        monkeypatch.chdir(tmp_path)
        code = bench_train.main(["--config", resource, *arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert list(tmp_path.iterdir()) == []  # standard output only
        return captured.out

    return run


@pytest.mark.slow
def test_the_table_shows_the_work_the_peak_and_a_row_of_figures(bench):
    out = bench()
    assert "MFLOP per token, forward and backward" in out
    assert "weights in matrices + 12 x 6 layers x 256 wide x 4.5 visible keys" in out
    assert "GFLOP/s (a matrix product, measured in this run)" in out
    header, row = (line.split() for line in out.splitlines()[-2:])
    assert header[:2] == ["tokens/s", "p10"]
    assert row[:2] == ["transformerlm,", "eager"]
    assert float(row[2]) > 0


@pytest.mark.parametrize(
    "objective",
    [
        "block_diffusion",
        pytest.param("masked_diffusion", marks=pytest.mark.slow),
        pytest.param("joint", marks=pytest.mark.slow),
    ],
)
def test_beside_others_every_objective_runs_and_is_compared_round_by_round(bench, objective):
    out = bench("--compare", "--set", f"objective.name={objective}")
    assert f"\ntransformerlm, {objective}, eager" in out
    assert "\nplain PyTorch, autoregressive, eager" in out
    assert f"transformerlm {objective}, eager / transformerlm autoregressive, eager" in out
    for peer in ("transformers", "litgpt"):  # in turns if installed, or named as missing
        assert f"\n{peer}, autoregressive, eager" in out or f"left out     {peer}: " in out


@pytest.mark.slow
def test_one_line_of_json_per_contender_whose_shares_add_up(bench):
    rows = [json.loads(line) for line in bench("--compare", "--json").splitlines()]
    assert {"transformerlm", "plain PyTorch"} <= {row["contender"] for row in rows}
    for row in rows:
        assert (row["size"], row["dtype"], row["mode"], row["steps"]) == ("tiny", "float32", "eager", 4)
        assert row["p10"] <= row["tokens/s"] <= row["p90"]
        assert row["forward %"] + row["backward %"] + row["update %"] + row["overhead %"] == pytest.approx(100)
        assert row["MFU %"] == pytest.approx(100 * row["flops_per_token"] * row["tokens/s"] / row["peak_flops"])
        assert row["compile s"] == 0
        assert row["MB peak"] > 0


@pytest.mark.long
def test_compiled_contenders_stand_beside_eager_ones(bench):
    rows = [json.loads(line) for line in bench("--json", "--set", 'benchmark.modes=["eager","compiled"]').splitlines()]
    assert [row["mode"] for row in rows] == ["eager", "compiled"]
    assert rows[0]["compile s"] == 0 < rows[1]["compile s"]


@pytest.mark.parametrize(("name", "millions"), [("tiny", 6.8), ("124M", 124), ("350M", 355), ("1B", 1080)])
def test_sizes_are_what_their_names_say(name, millions):
    with torch.device("meta"):
        model = TransformerLM(SIZES[name].shape)
    assert model.parameter_count() / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_plain_floor_is_the_same_network(is_tied):
    shape = ModelShape(64, 16, 32, 2, 4, 2, 48, tie_embeddings=is_tied)
    ours, plain = TransformerLM(shape), PlainTransformer(shape)
    with torch.no_grad():
        plain.embedding.weight.copy_(ours.embedding.weight)
        plain.head.weight.copy_(ours.head.weight)
        for mine, theirs in zip(ours.blocks, plain.layers, strict=True):
            query, key, value = mine.attention.qkv.weight.split([32, 16, 16])
            gate, up = mine.feed_forward.gate_up.weight.chunk(2)
            pairs = [(theirs.query, query), (theirs.key, key), (theirs.value, value), (theirs.gate, gate)]
            pairs += [
                (theirs.up, up),
                (theirs.out, mine.attention.out.weight),
                (theirs.down, mine.feed_forward.down.weight),
            ]
            for layer, weight in pairs:
                layer.weight.copy_(weight)
    tokens = torch.randint(63, (2, 17))
    loss = plain(tokens[:, :-1], tokens[:, 1:])
    output = Autoregressive()(ours, {"tokens": tokens}, None)
    torch.testing.assert_close(loss, output.loss_sum / output.weight)


def test_peers_train_with_the_optimizer_that_trainkit_would_build(workload):
    model = TransformerLM(SHAPE)
    theirs, ours = workload.build_adamw(model), build_optimizer(model, ADAMW, model.role_of)
    decay = {parameter: group["weight_decay"] for group in theirs.param_groups for parameter in group["params"]}
    expected = {parameter: group["weight_decay"] for group in ours.param_groups for parameter in group["params"]}
    assert decay == expected
    assert theirs.defaults["fused"] == ours.defaults["fused"]
    assert theirs.defaults["betas"] == ours.defaults["betas"]


def test_our_loop_and_the_plain_one_see_the_same_tokens(workload):
    first = [next(RandomRows(workload, 17))["tokens"] for _ in range(2)]
    assert torch.equal(*first)
    source = RandomRows(workload, 17)
    next(source)
    assert not torch.equal(next(source)["tokens"], first[0])


def test_memory_is_that_of_one_contender_alone(workload, tmp_path):
    small = PlainLoop("small", workload, *build_plain(workload))
    small.run(1)
    large_workload = Workload(SHAPE, 64, workload.device, workload.dtype)
    large = OurLoop(large_workload, Autoregressive(), tmp_path / "metrics.jsonl", is_compiled=False)
    large.run(1)
    weights = sum(weight.nbytes for weight in small.model.parameters())
    assert 3 * weights <= held_bytes(small) < 3.01 * weights  # AdamW keeps two more of each, and a counter
    logits = 64 * 16 * 64 * 4
    assert memory_of_step(small, workload.device) >= 4 * weights  # gradients
    assert memory_of_step(large, workload.device) > held_bytes(large) + 2 * logits
    assert memory_of_step(small, workload.device) < held_bytes(large) + 2 * logits
    large.close()


def test_ratios_are_those_of_the_same_round():
    class Fake:
        name = "x"

    def entry(*medians):
        return Entry(Fake(), "autoregressive", False, 1.0, rounds=[StepTimes([ms], {}) for ms in medians])

    ratio = compare(entry(10, 20, 10), entry(10, 40, 30))
    assert (ratio.median, ratio.low, ratio.high) == (2, 1, 3)


def test_a_timer_sees_steps_and_the_ranges_in_them():
    timer = StepTimer(torch.device("cpu"))
    for _ in range(3):
        timer.mark_step()
        timer.push("forward")
        timer.pop()
    times = timer.take()
    assert len(times.steps_ms) == 2
    assert 0 < times.parts_ms["forward"] < sum(times.steps_ms) * 1.5
    assert timer.take() == StepTimes([], {})
