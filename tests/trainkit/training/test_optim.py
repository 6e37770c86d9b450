"""Parameters are grouped by role, each once, whatever wraps the model."""

import pytest
import torch
from torch import nn
from trainkit_workers import make_model

from trainkit.training.optim import AdamWSettings, GroupSettings, MuonSettings, build_optimizer, group_by_role


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
