"""[objective]: what the model learns to predict. `name` chooses; each choice has its own keys and no others."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from config.section import Fraction, Section, rule

BlockLengths = Annotated[tuple[PositiveInt, ...], Field(strict=False)]  # a TOML array arrives as a list


class AutoregressiveSection(Section):
    """Predict each token from those before it."""

    name: Literal["autoregressive"]
    """Causal attention, cross-entropy of the next token."""


class MaskingSection(Section):
    """What every objective with masks has."""

    name: str
    """The objective."""
    noise_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Smallest mask rate of independent masks; it bounds the weight of a masked token by its inverse."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the mask rate grows with time t from 0 to 1."""
    mask_draw: Literal["stratified", "iid", "exact_count", "complementary"] = "stratified"
    """How masks are drawn; all have the same mean loss. `iid`: independently, at a rate of its own for each row or
    block. `stratified`: the rates spread evenly over the global batch. `exact_count`: an exact number of masks, spread
    evenly (the least variance in short blocks). `complementary`: the same, and a second copy of each row with all other
    tokens masked, for twice the work."""
    min_mask_rate: Fraction = 0.0
    """Lower end of the mask rates drawn in training (`exact_count`: of the share masked); evaluations take all."""
    max_mask_rate: Fraction = 1.0
    """Upper end. A narrower range varies less, but its loss is no bound (BD3-LM: 0.45 to 0.95 for blocks of 4, 0.3 to
    0.8 for blocks of 16)."""
    head: Literal["full", "gathered"] = "full"
    """`gathered` computes logits at masked positions only: same loss, less memory, for large vocabularies."""
    gather_capacity: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of positions that the gathered head has room for; a batch with more masks takes the full head."""
    shift_logits: bool = False
    """Predict each token at the position before it, as autoregressive weights have learned to (training.init_from);
    the first token of a row is then given."""

    @rule("min_mask_rate", "max_mask_rate")
    def some_rates_are_left(min_mask_rate: float, max_mask_rate: float) -> str | None:
        """Require a range."""
        return None if min_mask_rate < max_mask_rate else f"{min_mask_rate} is not below max_mask_rate; lower it"

    @rule("mask_draw", "min_mask_rate", "max_mask_rate")
    def complements_take_the_whole_range(mask_draw: str, min_mask_rate: float, max_mask_rate: float) -> str | None:
        """Refuse a clipped range for pairs whose rates add up to one."""
        if mask_draw != "complementary" or (min_mask_rate, max_mask_rate) == (0, 1):
            return None
        return '"complementary" masks take every rate; leave out min_mask_rate and max_mask_rate, or use "exact_count"'

    @rule("schedule", "mask_draw")
    def counts_are_uniform(schedule: str, mask_draw: str) -> str | None:
        """Refuse a schedule that counted masks do not follow."""
        if schedule == "linear" or mask_draw in ("stratified", "iid"):
            return None
        return f'"{schedule}" has no meaning for mask_draw = "{mask_draw}", whose counts are uniform; use "linear"'


class BidirectionalSection(MaskingSection):
    """What objectives with bidirectional attention have."""

    random_length_probability: Fraction = 0.0
    """Share of batches cut to a random length, so that the model also sees short texts (LLaDA: 0.01)."""
    annealing_steps: NonNegativeInt = 0
    """Widen attention from causal to bidirectional over so many steps, for weights that were trained causally
    (training.init_from); 0: bidirectional from the beginning."""


class MaskedDiffusionSection(BidirectionalSection):
    """Predict masked tokens from all the others (Sahoo et al. 2024; Nie et al. 2025)."""

    name: Literal["masked_diffusion"]
    """Bidirectional attention, cross-entropy of masked tokens weighted by 1 / mask rate."""


class BlockDiffusionSection(MaskingSection):
    """Masked diffusion within blocks, autoregression over them (Arriola et al. 2025)."""

    name: Literal["block_diffusion"]
    """Each block is denoised after finished ones: between autoregression (block_length = 1) and masked diffusion."""
    block_length: PositiveInt = 16
    """Tokens denoised together, by the finished model [tokens]."""
    mixed_block_lengths: BlockLengths = ()
    """Further block lengths: each step draws one of these and block_length, all equally likely [tokens]."""
    warmup_block_lengths: BlockLengths = ()
    """Block lengths to begin with, such as [1, 4], in this order; autoregressive weights know 1 already [tokens]."""
    warmup_block_steps: PositiveInt = 100
    """Steps at each of the warmup_block_lengths."""


class JointSection(BidirectionalSection):
    """Masked diffusion and autoregression at once, with one set of weights."""

    name: Literal["joint"]
    """alpha x masked diffusion + (1 - alpha) x autoregression; the model generates either way, or verified."""
    alpha: Fraction = 0.5
    """Share of the diffusion loss."""
    initial_alpha: Fraction | None = None
    """Its share at the first step, from which it goes to alpha in a straight line. Default: alpha."""
    alpha_steps: NonNegativeInt = 0
    """Steps in which alpha is reached; 0: at once."""


AnyObjective = AutoregressiveSection | MaskedDiffusionSection | BlockDiffusionSection | JointSection
ObjectiveSection = Annotated[AnyObjective, Field(discriminator="name")]
