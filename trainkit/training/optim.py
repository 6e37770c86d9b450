"""Group parameters by the role they play and build the optimizer.

Roles are read from module types and shapes, never from names: torch.compile and DDP put prefixes before names.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Role = Literal["matrix", "embedding", "vector"]


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """Set AdamW (Loshchilov and Hutter 2019); the learning rate comes from the schedule."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Applied to matrices only."""


def group_by_role(model: nn.Module) -> dict[Role, list[nn.Parameter]]:
    """Split the trained parameters into embeddings, matrices (two dimensions or more) and vectors (norms, biases).

    A tied weight appears once, as an embedding. Frozen parameters appear nowhere.
    """
    groups: dict[Role, list[nn.Parameter]] = {"matrix": [], "embedding": [], "vector": []}
    embeddings = {
        parameter
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    for parameter in trained_parameters(model):
        role = "embedding" if parameter in embeddings else "matrix" if parameter.ndim >= 2 else "vector"
        groups[role].append(parameter)
    return groups


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that receive gradients, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def build_adamw(model: nn.Module, settings: AdamWSettings) -> torch.optim.AdamW:
    """Build AdamW over the model's trained parameters, with weight decay on matrices only.

    Raises ValueError if the model has no parameter to train.
    """
    roles = group_by_role(model)
    grouped = [id(parameter) for parameters in roles.values() for parameter in parameters]
    expected = [id(parameter) for parameter in trained_parameters(model)]
    assert sorted(grouped) == sorted(expected), "every trained parameter belongs to exactly one group"
    if not expected:
        raise ValueError("the model has no parameter to train: is everything frozen?")
    groups = [
        {"params": roles["matrix"], "weight_decay": settings.weight_decay},
        {"params": roles["embedding"] + roles["vector"], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    is_fused = all(parameter.device.type in ("cuda", "cpu") for parameter in trained_parameters(model))
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=is_fused)
