"""Group parameters by the role they play and build the optimizer.

What a parameter is for, only its model knows: a task says so with a rule (`RoleOf`). Without one, roles are read from
module types and shapes. Either way each trained parameter lands in exactly one group, whatever wraps the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

Role = Literal["hidden", "head", "embedding", "vector"]
"""A map between hidden states, a map to the loss, a look-up table, or anything with fewer than two dimensions."""
RoleOf = Callable[[str, nn.Parameter], Role]
"""Tell the role of a parameter from its name in the unwrapped model, and itself."""

ROLES: tuple[Role, ...] = get_args(Role)
_COMPILED = "_orig_mod"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Set what the parameters of one role have for themselves."""

    weight_decay: float = 0.0
    learning_rate_scale: float = 1.0
    """Times the schedule's learning rate."""


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """Set AdamW (Loshchilov and Hutter 2019); the learning rate comes from the schedule."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Applied to hidden matrices and heads only."""

    def by_role(self) -> Mapping[Role, GroupSettings]:
        """Return the settings of each role's group."""
        decayed = GroupSettings(weight_decay=self.weight_decay)
        return {"hidden": decayed, "head": decayed, "embedding": GroupSettings(), "vector": GroupSettings()}


@dataclass(frozen=True, slots=True)
class MuonSettings:
    """Set Muon (Jordan et al. 2024) for the hidden matrices, beside AdamW for embeddings, heads and vectors.

    Updates are scaled to the size AdamW's would have (Liu et al. 2025, arXiv 2502.16982), so both follow the same
    schedule of learning rates; each role may scale it.
    """

    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's, for what Muon does not train."""
    eps: float = 1e-8
    hidden: GroupSettings = GroupSettings(weight_decay=0.1)
    head: GroupSettings = GroupSettings()
    embedding: GroupSettings = GroupSettings()
    vector: GroupSettings = GroupSettings()

    def by_role(self) -> Mapping[Role, GroupSettings]:
        """Return the settings of each role's group."""
        return {"hidden": self.hidden, "head": self.head, "embedding": self.embedding, "vector": self.vector}


OptimizerSettings = AdamWSettings | MuonSettings


def group_by_role(model: nn.Module, role_of: RoleOf | None = None) -> dict[Role, list[nn.Parameter]]:
    """Split the trained parameters by role; a tied weight appears once, frozen parameters nowhere.

    Raises ValueError for a role that does not exist.
    """
    role_of = role_of or role_by_type(model)
    groups: dict[Role, list[nn.Parameter]] = {role: [] for role in ROLES}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        role = role_of(unwrapped_name(model, name), parameter)
        if role not in groups:
            raise ValueError(f"{name} was given the role {role!r}: use one of {', '.join(ROLES)}")
        groups[role].append(parameter)
    grouped = [id(parameter) for parameters in groups.values() for parameter in parameters]
    expected = [id(parameter) for parameter in trained_parameters(model)]
    assert sorted(grouped) == sorted(expected), "every trained parameter belongs to exactly one group"
    return groups


def role_by_type(model: nn.Module) -> RoleOf:
    """Return a rule for models that bring none: it looks at module types and shapes.

    A matrix (two dimensions or more) of the shape of an embedding table is the head that maps back to its entries.
    """
    tables = {
        parameter
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    table_shapes = {parameter.shape for parameter in tables}

    def role_of(_name: str, parameter: nn.Parameter) -> Role:
        if parameter in tables:
            return "embedding"
        if parameter.ndim < 2:
            return "vector"
        return "head" if parameter.shape in table_shapes else "hidden"

    return role_of


def unwrapped_name(model: nn.Module, name: str) -> str:
    """Return a parameter's name without what torch.compile and DDP put into it; FSDP leaves names as they are."""
    words = []
    for word in name.split("."):
        if word != _COMPILED and not isinstance(model, nn.parallel.DistributedDataParallel):
            words.append(word)
        model = dict(model.named_children()).get(word, model)
    return ".".join(words)


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that receive gradients, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, role_of: RoleOf | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer over the model's trained parameters; its groups carry `role` and `learning_rate_scale`.

    Raises ValueError if the model has no parameter to train.
    """
    roles = group_by_role(model, role_of)
    if not any(roles.values()):
        raise ValueError("the model has no parameter to train: is everything frozen?")
    by_role = settings.by_role()
    if isinstance(settings, AdamWSettings):
        return _build_adamw([_group(role, roles[role], by_role[role]) for role in ROLES], settings)
    # Muon orthogonalises: that suits maps between hidden states, not look-up tables or what feeds the loss.
    matrices = [parameter for parameter in roles["hidden"] if parameter.ndim == 2]
    roles["hidden"] = [parameter for parameter in roles["hidden"] if parameter.ndim != 2]
    if not matrices:
        raise ValueError("the model has no hidden matrix for Muon to train: use AdamW")
    muon = torch.optim.Muon(
        [_group("hidden", matrices, by_role["hidden"])],
        lr=0.0,
        momentum=settings.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    others = [_group(role, roles[role], by_role[role]) for role in ROLES]
    return OptimizerPair(muon, _build_adamw(others, settings)) if any(roles.values()) else muon


def _group(role: Role, parameters: list[nn.Parameter], settings: GroupSettings) -> dict[str, Any]:
    return {
        "params": parameters,
        "role": role,
        "weight_decay": settings.weight_decay,
        "learning_rate_scale": settings.learning_rate_scale,
    }


def _build_adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.AdamW:
    groups = [group for group in groups if group["params"]]
    is_fused = all(parameter.device.type in ("cuda", "cpu") for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=is_fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group the schedule's learning rate, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["learning_rate_scale"]


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
    """Two optimizers over different parameters of one model, used as one: they share its groups and its state."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(first.param_groups + second.param_groups, {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be restored: this is how the base class puts new groups and a new state in place of the old."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        first, second = self.pair
        count = len(first.param_groups)
        first.param_groups, second.param_groups = self.param_groups[:count], self.param_groups[count:]
        first.state = second.state = self.state

    def step(self, closure: None = None) -> None:
        """Update all parameters."""
        assert closure is None, "no closure is ever used here"
        for optimizer in self.pair:
            optimizer.step()
