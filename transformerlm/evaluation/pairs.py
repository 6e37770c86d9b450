"""A context and what may follow it, as tokens."""

from collections.abc import Sequence

from transformerlm.likelihood.score import Passage
from transformerlm.tokenizer import Tokenizer


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokenize a context, behind an end-of-text token, and its continuation.

    Blanks between the two belong to the continuation: a word's token begins with its blank. The continuation gets the
    tokens that it has in the joined text, if the context's tokens are the same there; else it is encoded by itself.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    before = [tokenizer.end_of_text_id, *tokenizer.encode(stripped, allowed_special="none")]
    joined = [tokenizer.end_of_text_id, *tokenizer.encode(stripped + continuation, allowed_special="none")]
    if joined[: len(before)] == before:
        return before, joined[len(before) :]
    return before, tokenizer.encode(continuation, allowed_special="none")


def continuation_passage(context: Sequence[int], continuation: Sequence[int], length: int) -> Passage:
    """Return the passage that scores a continuation, its context cut from the left to fit `length` tokens.

    Raises ValueError if the continuation alone is too long, or empty.
    """
    if not continuation:
        raise ValueError("an empty continuation has nothing to score")
    room = length - len(continuation)
    if room < 1:
        raise ValueError(
            f"a continuation of {len(continuation)} tokens leaves no room for a context in the {length} tokens of the "
            "model; shorten it"
        )
    return Passage.continuation(context[-room:], continuation)
