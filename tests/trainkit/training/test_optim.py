"""Parameters are grouped by role, each once, whatever wraps the model."""

import pytest
import torch
from torch import nn
from trainkit_workers import make_model

from trainkit.training.optim import AdamWSettings, build_adamw, group_by_role


def names_by_role(model: nn.Module, wrapped: nn.Module) -> dict[str, list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {role: sorted(names[p] for p in parameters) for role, parameters in group_by_role(wrapped).items()}


def test_roles_are_a_partition_in_which_a_tied_weight_appears_once():
    model = make_model()
    assert names_by_role(model, model) == {
        "matrix": ["mix.weight"],
        "embedding": ["embedding.weight"],
        "vector": ["mix.bias", "norm.bias", "norm.weight"],
    }


def test_roles_survive_compile_and_frozen_parameters_have_none():
    model = make_model()
    model.norm.weight.requires_grad_(False)
    wrapped = torch.compile(model, backend="eager")
    assert all(name.startswith("_orig_mod.") for name, _ in wrapped.named_parameters())
    assert names_by_role(model, wrapped)["vector"] == ["mix.bias", "norm.bias"]
    assert names_by_role(model, wrapped)["matrix"] == ["mix.weight"]


def test_only_matrices_decay():
    model = make_model()
    optimizer = build_adamw(model, AdamWSettings(weight_decay=0.3))
    decayed = [group for group in optimizer.param_groups if group["weight_decay"] == 0.3]
    assert [p for group in decayed for p in group["params"]] == [model.mix.weight]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_a_model_without_trained_parameters_is_refused():
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        build_adamw(model, AdamWSettings())
