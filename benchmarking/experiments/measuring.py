"""Score models on text whose probability is known: nats per token above the truth."""

from dataclasses import dataclass
from itertools import count
from typing import Self

from transformerlm.checkpoint import LoadedModel
from transformerlm.likelihood.held_out import row_passages
from transformerlm.likelihood.score import CorpusScore, Passage
from transformerlm.likelihood.scorer import LikelihoodSettings, open_likelihood
from transformerlm.synthetic.languages import LANGUAGES
from transformerlm.synthetic.truth import document_rows, true_nats
from transformerlm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class KnownRows:
    """Held-out rows, and what their language says of them."""

    passages: list[Passage]
    true_nats: float

    @classmethod
    def of(cls, dataset_name: str, tokenizer: Tokenizer, length: int, rows: int = 48) -> Self:
        """Lay out the first validation documents of an embedded corpus in rows of `length` tokens."""
        language = LANGUAGES[dataset_name]
        texts = (language.document("validation", index) for index in count())
        tokens = document_rows(texts, tokenizer, rows, length)
        truth = sum(true_nats(row, tokenizer, language) for row in tokens.tolist())
        return cls(row_passages(tokens), truth)

    @property
    def true_nats_per_token(self) -> float:
        """The truth, per scored token."""
        return self.true_nats / sum(passage.num_scored for passage in self.passages)

    def excess_nats(self, loaded: LoadedModel, draws: int = 4) -> float:
        """Return how far a model's nats per token lie above the truth (of a bound: at most)."""
        scores = open_likelihood(loaded, LikelihoodSettings(draws)).score(self.passages)
        return CorpusScore.of(scores).nats_per_token - self.true_nats_per_token
