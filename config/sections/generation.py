"""How text is generated: the keys that [inference] and [sampling] share."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from config.section import Fraction, Section, Seed, TextList, rule

GenerationMode = Literal["auto", "autoregressive", "diffusion", "verified"]
Remasking = Literal[
    "random",
    "low_confidence",
    "margin",
    "entropy",
    "threshold",
    "factor",
    "entropy_bound",
    "first_hitting",
    "remdm",
]
Cache = Literal["auto", "none", "prefix", "dual", "block"]


class GenerationSettings(Section):
    """What a sampler needs, whoever calls it."""

    num_samples: PositiveInt = 1
    """Texts to generate for each prompt."""
    total_length: PositiveInt | None = None
    """Final length, prompt included [tokens]. Default: the model's context length."""
    min_new_tokens: NonNegativeInt = 0
    """The end-of-text token may not come before so many tokens behind the prompt [tokens]."""
    ignore_eos: bool = False
    """Go on behind end-of-text tokens, with a next text, up to the total length."""
    temperature: NonNegativeFloat = 1.0
    """Divides the logits: below 1 safer, above 1 wilder; 0 always takes the likeliest token."""
    top_k: NonNegativeInt = 0
    """Draw among this many likeliest tokens; 0 draws among all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw among the likeliest tokens that together reach this probability; 1 draws among all."""
    min_p: Fraction = 0.0
    """Draw among the tokens at least this fraction as likely as the likeliest; 0 draws among all."""
    repetition_penalty: PositiveFloat = 1.0
    """Divides the logits of tokens that the text already holds (multiplies negative ones); 1 is off."""
    seed: Seed = 0
    """Seed of the draws."""
    generation_mode: GenerationMode = "auto"
    """`auto` generates the way the model was trained; a joint model can do all: `verified` drafts by diffusion what
    autoregression would write, and checks it."""
    draft_length: PositiveInt = 8
    """Verified: tokens drafted at once."""
    steps: PositiveInt | None = None
    """Diffusion: denoising steps, over all blocks together, of the policies that plan and of `remdm`. Default: one per
    generated token."""
    block_length: PositiveInt | None = None
    """Diffusion: blocks of this length are denoised left to right, the last one may be shorter [tokens]. Default: one
    block."""
    remasking: Remasking = "low_confidence"
    """Diffusion: which predictions a step keeps, the others stay masked. As many as planned, at `random` or the surest
    by `low_confidence` (probability), `margin` (to the second likeliest) or `entropy`; or as many as are sure enough,
    by `threshold`, `factor` or `entropy_bound`; or one at a time, uniformly (`first_hitting`: exact); or by chance,
    masking some tokens again (`remdm`)."""
    confidence_threshold: NonNegativeFloat = 0.9
    """Of `threshold`: keep every token of at least this probability; above 1 keeps one per step."""
    confidence_factor: NonNegativeFloat = 1.0
    """Of `factor`: keep the r-th surest token if its probability is at least 1 - factor / (r + 1)."""
    entropy_bound: NonNegativeFloat = 0.1
    """Of `entropy_bound`: keep as many as have this summed entropy, the largest not counted [nats]."""
    remask_share: Fraction = 0.1
    """Of `remdm`: chance of a kept token to be masked again at each step."""
    end_last: bool = False
    """Diffusion: keep an end-of-text token only when nothing else is left in its block."""
    cache: Cache = "auto"
    """Diffusion: what a step does not recompute. `none`: nothing is kept. `prefix` keeps what lies before the block,
    `dual` what lies around it: refreshed once per block, approximations. `block` is exact, for block-causal models.
    `auto`: `block` for those, `none` for others."""
    cfg_scale: NonNegativeFloat = 0.0
    """Diffusion: strength of classifier-free guidance by the prompt; 0 switches it off."""
    stop: TextList = ()
    """Texts at which generation ends; so it does at the end-of-text token, unless `ignore_eos`."""

    @rule("stop")
    def stops_have_text(stop: tuple[str, ...]) -> str | None:
        """Refuse the empty text, which would stop everything at once."""
        return None if all(stop) else "an empty text would stop at once; remove it"

    @rule("repetition_penalty", "generation_mode")
    def verified_has_no_penalty(repetition_penalty: float, generation_mode: str) -> str | None:
        """Refuse a penalty by tokens that a draft does not know yet."""
        if repetition_penalty == 1 or generation_mode != "verified":
            return None
        return f'{repetition_penalty} cannot be applied to drafts; set it to 1, or generation_mode = "autoregressive"'

    @rule("ignore_eos", "min_new_tokens", "end_last")
    def nothing_is_asked_of_an_end(ignore_eos: bool, min_new_tokens: int, end_last: bool) -> str | None:
        """Refuse wishes about the token that ends a text where none does."""
        if not ignore_eos or not (min_new_tokens or end_last):
            return None
        other = f"min_new_tokens = {min_new_tokens}" if min_new_tokens else "end_last = true"
        return f"no token ends a text then, so {other} means nothing; leave one of the two out"

    @rule("min_new_tokens", "total_length")
    def the_least_fits(min_new_tokens: int, total_length: int | None) -> str | None:
        """Require room for the tokens that must come."""
        if total_length is None or min_new_tokens < total_length:
            return None
        return f"{min_new_tokens} tokens do not fit into total_length = {total_length}; lower it"
