"""Group parameters by the role they play and build the optimizer.

Roles are read from module types and shapes, never from names: torch.compile and DDP put prefixes before names.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

Role = Literal["matrix", "head", "embedding", "vector"]


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """Set AdamW (Loshchilov and Hutter 2019); the learning rate comes from the schedule."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Applied to matrices only."""


@dataclass(frozen=True, slots=True)
class MuonSettings:
    """Set Muon (Jordan et al. 2024) for the matrices, beside AdamW for embeddings, the head and vectors.

    Updates are scaled to the size AdamW's would have (Liu et al. 2025, arXiv 2502.16982), so both follow the same
    schedule of learning rates.
    """

    momentum: float = 0.95
    weight_decay: float = 0.1
    """Applied to matrices only, by Muon."""
    adamw: AdamWSettings = field(default_factory=lambda: AdamWSettings(weight_decay=0.0))
    """For all parameters that Muon does not train."""


OptimizerSettings = AdamWSettings | MuonSettings


def group_by_role(model: nn.Module) -> dict[Role, list[nn.Parameter]]:
    """Split the trained parameters into embeddings, heads, other matrices, and vectors (norms, biases).

    A matrix (two dimensions or more) of the shape of an embedding table is the head that maps back to its entries.
    A tied weight appears once, as an embedding. Frozen parameters appear nowhere.
    """
    groups: dict[Role, list[nn.Parameter]] = {"matrix": [], "head": [], "embedding": [], "vector": []}
    embeddings = {
        parameter
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    table_shapes = {parameter.shape for parameter in embeddings}
    for parameter in trained_parameters(model):
        if parameter in embeddings:
            groups["embedding"].append(parameter)
        elif parameter.ndim < 2:
            groups["vector"].append(parameter)
        else:
            groups["head" if parameter.shape in table_shapes else "matrix"].append(parameter)
    return groups


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that receive gradients, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build the optimizer over the model's trained parameters.

    Raises ValueError if the model has no parameter to train.
    """
    roles = group_by_role(model)
    grouped = [id(parameter) for parameters in roles.values() for parameter in parameters]
    expected = [id(parameter) for parameter in trained_parameters(model)]
    assert sorted(grouped) == sorted(expected), "every trained parameter belongs to exactly one group"
    if not expected:
        raise ValueError("the model has no parameter to train: is everything frozen?")
    if isinstance(settings, AdamWSettings):
        return _build_adamw(roles["matrix"] + roles["head"], roles["embedding"] + roles["vector"], settings)
    # Muon orthogonalises: that suits maps between hidden states, not look-up tables or what feeds the loss.
    hidden = [parameter for parameter in roles["matrix"] if parameter.ndim == 2]
    others = [parameter for parameter in roles["matrix"] if parameter.ndim != 2]
    if not hidden:
        raise ValueError("the model has no hidden matrix for Muon to train: use AdamW")
    muon = torch.optim.Muon(
        hidden,
        lr=0.0,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = _build_adamw(others + roles["head"], roles["embedding"] + roles["vector"], settings.adamw)
    return OptimizerPair(muon, adamw)


def _build_adamw(decayed: list[nn.Parameter], others: list[nn.Parameter], settings: AdamWSettings) -> torch.optim.AdamW:
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    is_fused = all(parameter.device.type in ("cuda", "cpu") for parameter in decayed + others)
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=is_fused)


def optimizer_kind(optimizer: torch.optim.Optimizer) -> str:
    """Name the algorithms of an optimizer, such as "AdamW" or "Muon+AdamW": their states are not interchangeable."""
    return "+".join(type(part).__name__ for part in separate_optimizers(optimizer))


def separate_optimizers(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """Return torch's own optimizers that `optimizer` is made of."""
    return optimizer.pair if isinstance(optimizer, OptimizerPair) else (optimizer,)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the current learning rate of each parameter group, by the group's role."""
    return {group.get("role", f"group_{i}"): group["lr"] for i, group in enumerate(optimizer.param_groups)}


class OptimizerPair(torch.optim.Optimizer):
    """Two optimizers over different parameters of one model, used as one."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(first.param_groups + second.param_groups, {})
        # The base class copied the groups: share them again, so that a learning rate set here reaches the owner.
        self.param_groups = first.param_groups + second.param_groups

    def step(self, closure: None = None) -> None:
        """Update all parameters."""
        assert closure is None, "no closure is ever used here"
        for optimizer in self.pair:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return both states, numbered through like the groups."""
        first, second = (optimizer.state_dict() for optimizer in self.pair)
        offset = sum(len(group["params"]) for group in first["param_groups"])
        moved = [{**group, "params": [index + offset for index in group["params"]]} for group in second["param_groups"]]
        return {
            "state": first["state"] | {index + offset: state for index, state in second["state"].items()},
            "param_groups": first["param_groups"] + moved,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state that state_dict returned."""
        count = len(self.pair[0].param_groups)
        offset = sum(len(group["params"]) for group in state_dict["param_groups"][:count])
        state, groups = state_dict["state"], state_dict["param_groups"]
        moved = [{**group, "params": [index - offset for index in group["params"]]} for group in groups[count:]]
        self.pair[0].load_state_dict(
            {"state": {i: s for i, s in state.items() if i < offset}, "param_groups": groups[:count]}
        )
        self.pair[1].load_state_dict(
            {"state": {i - offset: s for i, s in state.items() if i >= offset}, "param_groups": moved}
        )
        self.param_groups = self.pair[0].param_groups + self.pair[1].param_groups
