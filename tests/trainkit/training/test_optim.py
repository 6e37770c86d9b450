"""Parameters are grouped by role, each once, whatever wraps the model."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from trainkit_workers import make_model

from trainkit.training.optim import (
    AdamWSettings,
    GroupSettings,
    MuonSettings,
    build_optimizer,
    group_by_role,
    optimizer_kind,
    set_learning_rate,
    unwrapped_name,
)


@pytest.fixture
def lonely_group(tmp_path) -> Iterator[None]:
    """Be the only rank of a process group, which DDP asks for."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def names_by_role(model: nn.Module, wrapped: nn.Module) -> dict[str, list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {role: sorted(names[p] for p in parameters) for role, parameters in group_by_role(wrapped).items()}


def test_roles_are_a_partition_in_which_a_tied_weight_appears_once():
    model = make_model()
    assert names_by_role(model, model) == {
        "hidden": ["mix.weight"],
        "head": [],
        "embedding": ["embedding.weight"],
        "vector": ["mix.bias", "norm.bias", "norm.weight"],
    }


def test_roles_survive_compile_and_frozen_parameters_have_none():
    model = make_model()
    model.norm.weight.requires_grad_(False)
    wrapped = torch.compile(model, backend="eager")
    assert all(name.startswith("_orig_mod.") for name, _ in wrapped.named_parameters())
    assert names_by_role(model, wrapped)["vector"] == ["mix.bias", "norm.bias"]
    assert names_by_role(model, wrapped)["hidden"] == ["mix.weight"]


def test_names_lose_what_compile_and_ddp_put_into_them_and_nothing_else(lonely_group):
    model = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"module": nn.Linear(2, 2)}))
    plain = [name for name, _ in model.named_parameters()]
    model[1] = torch.compile(model[1], backend="eager")
    wrapped = torch.compile(nn.parallel.DistributedDataParallel(model), backend="eager")
    found = [name for name, _ in wrapped.named_parameters()]
    assert found[0] == "_orig_mod.module.0.weight"
    assert "_orig_mod" in found[2].removeprefix("_orig_mod.")
    assert [unwrapped_name(wrapped, name) for name in found] == plain == [
        "0.weight", "0.bias", "1.module.weight", "1.module.bias",
    ]  # fmt: skip


def test_a_task_may_tell_roles_by_name_whatever_wraps_the_model(lonely_group):
    model = make_model()
    wrapped = nn.parallel.DistributedDataParallel(torch.compile(model, backend="eager"))
    told = {}

    def role_of(name: str, parameter: nn.Parameter) -> str:
        told[name] = parameter
        return "head" if name == "mix.weight" else "vector"

    roles = group_by_role(wrapped, role_of)
    assert told == dict(model.named_parameters())
    assert roles["head"] == [model.mix.weight]
    assert len(roles["vector"]) == 4


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match=r"embedding.weight was given the role 'table': use one of hidden, head"):
        group_by_role(make_model(), lambda name, parameter: "table")


def test_groups_have_their_own_learning_rate_and_decay():
    model = Untied()
    settings = MuonSettings(
        hidden=GroupSettings(weight_decay=0.2, learning_rate_scale=2.0), vector=GroupSettings(learning_rate_scale=0.5)
    )
    optimizer = build_optimizer(model, settings)
    set_learning_rate(optimizer, 0.01)
    groups = {group["role"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert groups == {"hidden": (0.02, 0.2), "head": (0.01, 0.0), "embedding": (0.01, 0.0), "vector": (0.005, 0.0)}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.hidden.weight, before["hidden.weight"] * (1 - 0.02 * 0.2))
    assert torch.equal(model.head.weight, before["head.weight"])


def test_hidden_parameters_that_are_no_matrices_are_left_to_adamw():
    model = nn.Sequential(nn.Conv1d(2, 2, 3, bias=False), nn.Linear(2, 2, bias=False))
    optimizer = build_optimizer(model, MuonSettings(hidden=GroupSettings(learning_rate_scale=3.0)))
    muon, adamw = optimizer.pair
    assert [group["params"] for group in muon.param_groups] == [[model[1].weight]]
    assert [(group["params"], group["learning_rate_scale"]) for group in adamw.param_groups] == [
        ([model[0].weight], 3.0)
    ]
    only_matrices = nn.Linear(2, 2, bias=False)
    assert optimizer_kind(build_optimizer(only_matrices, MuonSettings())) == "Muon"


def test_only_matrices_decay():
    model = make_model()
    optimizer = build_optimizer(model, AdamWSettings(weight_decay=0.3))
    decayed = [group for group in optimizer.param_groups if group["weight_decay"] == 0.3]
    assert [p for group in decayed for p in group["params"]] == [model.mix.weight]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_a_model_without_trained_parameters_is_refused():
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        build_optimizer(model, AdamWSettings())


class Untied(nn.Module):
    """Every role: a table, a hidden matrix, a norm, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.hidden = nn.Embedding(7, 4), nn.Linear(4, 4, bias=False)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 7, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.hidden(self.embedding(ids))))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_an_untied_head_is_told_from_hidden_matrices_by_its_shape():
    model = Untied()
    roles = names_by_role(model, model)
    assert (roles["hidden"], roles["head"]) == (["hidden.weight"], ["head.weight"])


def test_muon_trains_hidden_matrices_with_torchs_own_and_the_rest_with_adamw():
    model, expected = Untied(), Untied()
    take_steps(model, build_optimizer(model, MuonSettings(hidden=GroupSettings(weight_decay=0.2))), 3)
    muon = torch.optim.Muon([expected.hidden.weight], weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    others = [p for name, p in expected.named_parameters() if name != "hidden.weight"]
    adamw = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(3):
        for group in muon.param_groups + adamw.param_groups:
            group["lr"] = 0.01 * (step + 1)
        expected(torch.arange(7)).square().sum().backward()
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), msg=name)


def test_a_muon_state_continues_exactly():
    whole, first, second = Untied(), Untied(), Untied()
    take_steps(whole, optimizer := build_optimizer(whole, MuonSettings()), 2)
    take_steps(whole, optimizer, 2)
    take_steps(first, optimizer := build_optimizer(first, MuonSettings()), 2)
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, MuonSettings())
    resumed.load_state_dict(optimizer.state_dict())
    take_steps(second, resumed, 2)
    assert all(torch.equal(second.get_parameter(name), parameter) for name, parameter in whole.named_parameters())


def test_muon_without_a_hidden_matrix_is_refused():
    with pytest.raises(ValueError, match="no hidden matrix for Muon"):
        build_optimizer(nn.Embedding(3, 4), MuonSettings())
