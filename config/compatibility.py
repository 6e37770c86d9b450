"""What an objective allows of generation: rules that several configurations share."""

from config.words import quote_or

MODES = {
    "autoregressive": ("autoregressive",),
    "masked_diffusion": ("diffusion",),
    "block_diffusion": ("diffusion",),
    "joint": ("diffusion", "autoregressive", "verified"),
}
CACHES = {
    "masked_diffusion": ("none", "prefix", "dual"),
    "block_diffusion": ("block", "none"),
    "joint": ("none", "prefix", "dual"),
}


def beyond_context(total_length: int | None, context_length: int) -> str | None:
    """Say what is wrong with a text that is longer than the context."""
    if total_length is None or total_length <= context_length:
        return None
    return f"{total_length} is above model.context_length = {context_length}; lower it"


def wrong_mode(generation_mode: str, objective: str) -> str | None:
    """Say what is wrong with a way of generating that the model was not trained for."""
    fitting = ("auto", *MODES[objective])
    if generation_mode in fitting:
        return None
    return f'"{generation_mode}" does not fit objective.name = "{objective}"; use {quote_or(fitting)}'


def wrong_cache(cache: str, objective: str) -> str | None:
    """Say what is wrong with a cache that does not fit the model's attention."""
    fitting = ("auto", *CACHES.get(objective, (cache,)))
    if cache in fitting:
        return None
    reason = "is exact for block-causal models only" if cache == "block" else "is made for bidirectional attention"
    return f'"{cache}" {reason}, and objective.name = "{objective}"; use {quote_or(fitting)}'
