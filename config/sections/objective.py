"""[objective]: what the model learns to predict. `name` chooses; each choice has its own keys and no others."""

from typing import Annotated, Literal

from pydantic import Field

from config.section import Fraction, Section


class AutoregressiveSection(Section):
    """Predict each token from those before it."""

    name: Literal["autoregressive"]
    """Causal attention, cross-entropy of the next token."""


class MaskedDiffusionSection(Section):
    """Predict masked tokens from all the others (Sahoo et al. 2024; Nie et al. 2025)."""

    name: Literal["masked_diffusion"]
    """Bidirectional attention, cross-entropy of masked tokens weighted by 1 / mask rate."""
    noise_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Smallest mask rate; it bounds the weight of a masked token by its inverse."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the mask rate grows with time t from 0 to 1."""
    time_sampling: Literal["stratified", "iid"] = "stratified"
    """`stratified` spreads t evenly over the global batch (less variance); `iid` draws each row alone."""
    random_length_probability: Fraction = 0.0
    """Share of batches cut to a random length, so that the model also sees short texts (LLaDA: 0.01)."""
    head: Literal["full", "gathered"] = "full"
    """`gathered` computes logits at masked positions only: same loss, less memory, for large vocabularies."""
    gather_capacity: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of positions that the gathered head has room for; a batch with more masks takes the full head."""


AnyObjective = AutoregressiveSection | MaskedDiffusionSection
ObjectiveSection = Annotated[AnyObjective, Field(discriminator="name")]
