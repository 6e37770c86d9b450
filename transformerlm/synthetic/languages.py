"""The embedded corpora by the name that `dataset_name` knows them by, each with what it knows of itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from transformerlm.synthetic import hidden_markov, stories


@dataclass(frozen=True, slots=True)
class KnownLanguage:
    """A corpus without end whose every text has a known probability."""

    unit: str
    """What one document is called."""
    plural: str
    document: Callable[[str, int], str]
    """(split, index) -> text, the same on every machine; raises ValueError on an unknown split."""
    log_probability: Callable[[str], float]
    """Of a whole document [nats]; what is none has -inf or raises ValueError."""
    prefix_log_probability: Callable[[str], float]
    """Of all documents that begin so, together [nats]; -inf if none does."""
    entropy_nats: Callable[[], float]
    """Of a document, exact: no model can do better on average."""
    expected_bytes: Callable[[], float]
    """Mean length of a document in UTF-8 bytes, exact."""

    def contains(self, text: str) -> bool:
        """Tell whether a text is a document of this language, from beginning to end."""
        try:
            return self.log_probability(text) > -math.inf
        except stories.NotAStory:
            return False


LANGUAGES = {
    "synthetic/stories": KnownLanguage(
        "story",
        "stories of the grammar",
        stories.story,
        stories.log_probability,
        stories.prefix_log_probability,
        stories.entropy_nats,
        stories.expected_bytes,
    ),
    "synthetic/hidden_markov": KnownLanguage(
        "sequence",
        "sequences of the source",
        hidden_markov.document,
        hidden_markov.log_probability,
        hidden_markov.prefix_log_probability,
        hidden_markov.entropy_nats,
        hidden_markov.expected_bytes,
    ),
}
