"""How good generated stories are, without a judge: the grammar that wrote the corpus gives every text its probability.

A text that is no story has no probability, but a beginning of it has: up to where it leaves the grammar. A weak model's
samples are therefore compared by how far they agree, and by the nats per token of what agrees. Diversity is watched
beside it: a sampler that repeats itself writes likely texts (Zheng et al. 2024, arXiv 2409.02908).
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformerlm.synthetic.stories import NotAStory, parse, prefix_log_probability
from transformerlm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextQuality:
    """One text."""

    is_story: bool
    agreed_share: float
    """Share of its characters that agree with some story."""
    agreed_tokens: int
    agreed_nats: float
    """-log of the probability that a story begins with what agrees; of a whole story, its own -log p."""
    token_entropy: float
    """Entropy of its token counts [nats]: low if it repeats itself."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Many texts."""

    num_texts: int
    valid_share: float
    agreed_share: float
    agreed_share_error: float
    """Standard error of the mean."""
    nats_per_token: float
    """Of what agrees, all texts together."""
    nats_per_token_error: float
    """Standard error of that ratio, texts taken as independent."""
    sample_entropy: float
    """Mean entropy of a text's token counts [nats]."""


def grade_text(text: str, tokenizer: Tokenizer) -> TextQuality:
    """Read a text with the grammar."""
    tokens = tokenizer.encode(text, allowed_special="none")
    entropy = token_entropy(tokens)
    try:
        story = parse(text)
    except NotAStory as error:
        # The last word may be cut in two: a whole token more than what agrees would have no probability.
        agreed = text[: error.offset]
        nats = -prefix_log_probability(agreed)
        return TextQuality(False, len(agreed) / max(1, len(text)), len(tokenizer.encode(agreed)), nats, entropy)
    return TextQuality(True, 1.0, len(tokens), -story.log_probability, entropy)


def grade_texts(texts: Sequence[str], tokenizer: Tokenizer) -> Quality:
    """Grade many texts; raises ValueError if there are none."""
    if not texts:
        raise ValueError("no texts to grade; generate at least one")
    grades = [grade_text(text, tokenizer) for text in texts]
    count = len(grades)
    tokens = [grade.agreed_tokens for grade in grades]
    nats = [grade.agreed_nats for grade in grades]
    ratio = sum(nats) / max(1, sum(tokens))
    residuals = [nat - ratio * token for nat, token in zip(nats, tokens, strict=True)]
    shares = [grade.agreed_share for grade in grades]
    return Quality(
        num_texts=count,
        valid_share=sum(grade.is_story for grade in grades) / count,
        agreed_share=statistics.mean(shares),
        agreed_share_error=standard_error(shares),
        nats_per_token=ratio,
        nats_per_token_error=standard_error(residuals) * count / max(1, sum(tokens)),
        sample_entropy=statistics.mean(grade.token_entropy for grade in grades),
    )


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def token_entropy(tokens: Sequence[int]) -> float:
    """Return the entropy of the token counts [nats]; 0 for no tokens."""
    counts, total = Counter(tokens).values(), len(tokens)
    return math.fsum(-count / total * math.log(count / total) for count in counts) if total else 0.0
