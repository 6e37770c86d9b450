"""[optimizer]: how gradients become updates. `name` chooses; each choice has its own keys."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from config.section import Section, rule

Betas = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)]


class ScheduledSection(Section):
    """Keys shared by all optimizers: the learning rate's course, AdamW's moments, decay and clipping."""

    max_learning_rate: PositiveFloat
    """Learning rate after warmup."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the last step, for the schedules that decay."""
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    """Course of the learning rate after warmup."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly from 0 [optimizer steps]."""
    decay_steps: PositiveInt | None = None
    """Length of the final decay of `warmup_stable_decay`, which requires it [optimizer steps]."""
    betas: Betas = (0.9, 0.95)
    """Decay of the running mean of the gradient and of its square."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator of the update."""
    weight_decay: NonNegativeFloat = 0.1
    """Share of a matrix that is taken away per step, times the learning rate."""
    grad_clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the whole gradient, above which it is scaled down; 0 switches clipping off."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep an exponential moving average of the weights, such as 0.999: the share of it that stays at each step. It is
    what validation, samples and inference then use. 0: none."""

    @rule("min_learning_rate", "max_learning_rate")
    def learning_rates_in_order(low: float, high: float) -> str | None:
        """Require a schedule that falls."""
        return None if low <= high else f"{low:g} is above max_learning_rate = {high:g}; lower it"

    @rule("decay_steps", "schedule")
    def decay_belongs_to_its_schedule(decay_steps: int | None, schedule: str) -> str | None:
        """Require decay_steps exactly where a schedule uses them."""
        if (schedule == "warmup_stable_decay") == (decay_steps is not None):
            return None
        if decay_steps is None:
            return 'required by schedule = "warmup_stable_decay"; try a fifth of training.max_steps'
        return f'not used by schedule = "{schedule}"; remove it or set schedule = "warmup_stable_decay"'


class AdamWSection(ScheduledSection):
    """AdamW for everything; norms and embeddings are not decayed."""

    name: Literal["adamw"]
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""


class MuonGroupSection(Section):
    """What parameters of one role have for themselves."""

    max_learning_rate: PositiveFloat | None = None
    """Learning rate after warmup; it rises and falls with the schedule. Without it: optimizer.max_learning_rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Share that is taken away per step, times the learning rate."""


class MuonHiddenSection(Section):
    """What the matrices between hidden states have for themselves; Muon trains them."""

    max_learning_rate: PositiveFloat | None = None
    """Learning rate after warmup; it rises and falls with the schedule. Without it: optimizer.max_learning_rate."""
    weight_decay: NonNegativeFloat | None = None
    """Share that is taken away per step, times the learning rate. Without it: optimizer.weight_decay."""


class MuonGroupsSection(Section):
    """Learning rates and weight decay by the role of parameters."""

    hidden: MuonHiddenSection = MuonHiddenSection()
    """Matrices between hidden states."""
    embedding: MuonGroupSection = MuonGroupSection()
    """The token embedding, also where it serves as the head."""
    head: MuonGroupSection = MuonGroupSection()
    """The output projection, where it has weights of its own."""
    vector: MuonGroupSection = MuonGroupSection()
    """Norms and everything else with one dimension."""


class MuonSection(ScheduledSection):
    """Muon for the matrices between hidden states, AdamW without decay for embeddings, the head and norms."""

    name: Literal["muon"]
    """Momentum, orthogonalised (Jordan et al. 2024), scaled like AdamW's updates: learning rates carry over."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of Muon's running mean of the gradient."""
    muon: MuonGroupsSection = MuonGroupsSection()
    """What differs between groups of parameters."""


OptimizerSection = Annotated[AdamWSection | MuonSection, Field(discriminator="name")]
