"""What an evaluation found, as numbers, as JSON and as tables; "<=" marks what is an upper bound."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from transformerlm.evaluation.choices import ChoiceResult
from transformerlm.evaluation.infilling import InfillingResult
from transformerlm.evaluation.texts import HeldOutText
from transformerlm.likelihood.score import CorpusScore, DocumentScore
from transformerlm.likelihood.scorer import Likelihood


@dataclass(frozen=True, slots=True)
class TextResult:
    """A likelihood of held-out text, in the usual units."""

    nats_per_token: float
    standard_error: float
    """Of nats_per_token over rows or documents; masks add to their spread, so their share is in it."""
    draw_error: float
    """What random masks contribute, as if they were drawn independently (stratified counts do better): more draws lower
    it. 0 where nothing is drawn."""
    is_bound: bool
    num_units: int
    num_tokens: int
    num_bytes: int
    excess_nats_per_token: float | None
    """Above what the language itself gives the text; None where that is not known."""
    excess_error: float | None
    """Its standard error; smaller than that of nats_per_token, as both look at the same rows."""

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte: comparable between tokenizers."""
        return self.nats_per_token * self.num_tokens / math.log(2) / self.num_bytes

    @classmethod
    def measure(cls, likelihood: Likelihood, text: HeldOutText) -> Self:
        """Score a text; its units are what errors are taken over."""
        units = _add_up(likelihood.score(text.passages), text)
        total = CorpusScore.of(units)
        excess = excess_error = None
        if text.true_nats is not None:
            above = [
                DocumentScore(unit.nats - truth, unit.num_tokens)
                for unit, truth in zip(units, text.true_nats, strict=True)
            ]
            difference = CorpusScore.of(above)
            excess, excess_error = difference.nats_per_token, difference.document_error
        return cls(
            total.nats_per_token,
            total.document_error,
            total.draw_error / total.num_tokens,
            total.is_bound,
            total.num_documents,
            total.num_tokens,
            text.num_bytes,
            excess,
            excess_error,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self) | {"bits_per_byte": self.bits_per_byte, "perplexity": self.perplexity}


def _add_up(scores: Sequence[DocumentScore], text: HeldOutText) -> list[DocumentScore]:
    """Join the windows of each unit."""
    nats, tokens, variances = ([0.0] * text.num_units for _ in range(3))
    for owner, score in zip(text.owners, scores, strict=True):
        nats[owner] += score.nats
        tokens[owner] += score.num_tokens
        variances[owner] += score.standard_error**2
    is_bound = any(score.is_bound for score in scores)
    return [
        DocumentScore(nats[unit], int(tokens[unit]), math.sqrt(variances[unit]), is_bound)
        for unit in range(text.num_units)
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """What was found of one checkpoint."""

    checkpoint: str
    objective: str
    """With the likelihood that was taken, of models that have two."""
    text: TextResult | None = None
    choices: ChoiceResult | None = None
    infilling: InfillingResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, without what was not measured."""
        record: dict[str, Any] = {"checkpoint": self.checkpoint, "objective": self.objective}
        if self.text is not None:
            record["text"] = self.text.to_dict()
        if self.choices is not None:
            record["choices"] = asdict(self.choices) | {"standard_error": self.choices.standard_error}
        if self.infilling is not None:
            record["infilling"] = asdict(self.infilling) | {"match_error": self.infilling.match_error}
        return record


def format_report(lines: Sequence[Line], text_name: str, num_draws: int) -> str:
    """Lay everything out as tables, one for each task that was measured."""
    tables = [_text_table(lines, text_name, num_draws), _choices_table(lines), _infilling_table(lines)]
    return "\n\n".join("\n".join(table) for table in map(list, tables) if table)


def _text_table(lines: Sequence[Line], text_name: str, num_draws: int) -> Iterator[str]:
    found = [(line, line.text) for line in lines if line.text is not None]
    if not found:
        return
    first = found[0][1]
    yield f"{text_name}: {first.num_units} rows or documents, {first.num_tokens:,} tokens, {first.num_bytes:,} bytes"
    titles = ["nats/token", "± rows", "± masks", "bits/byte", "perplexity", "above the truth"]
    knows_truth = first.excess_nats_per_token is not None
    rows = []
    for line, text in found:
        sign = "<= " if text.is_bound else ""
        above = ""
        if text.excess_nats_per_token is not None:
            share = text.excess_nats_per_token / (text.nats_per_token - text.excess_nats_per_token)
            above = f"{sign}{text.excess_nats_per_token:.4f} ± {text.excess_error:.4f} ({share:.1%})"
        cells = [
            f"{sign}{text.nats_per_token:.4f}",
            f"{text.standard_error:.4f}",
            f"{text.draw_error:.4f}" if text.is_bound else "exact",
            f"{sign}{text.bits_per_byte:.4f}",
            f"{sign}{text.perplexity:.3f}",
        ]
        rows.append([line.checkpoint, line.objective, *cells, *([above] if knows_truth else [])])
    if knows_truth:
        truth = first.nats_per_token - first.excess_nats_per_token
        bits = truth * first.num_tokens / math.log(2) / first.num_bytes
        rows.append(["the truth", "", f"{truth:.4f}", "", "exact", f"{bits:.4f}", f"{math.exp(truth):.3f}", ""])
    yield from _lay_out(["", "", *titles[: 6 if knows_truth else 5]], rows)
    if any(text.is_bound for _, text in found):
        yield f"<= upper bounds from {num_draws} random masks per row; ± masks as if these were drawn independently"


def _choices_table(lines: Sequence[Line]) -> Iterator[str]:
    found = [(line, line.choices) for line in lines if line.choices is not None]
    if not found:
        return
    first = found[0][1]
    yield f"choices: {first.num_questions} questions, chance {first.chance:.1%}"
    rows = [
        [
            line.checkpoint,
            line.objective,
            f"{choices.accuracy:.1%} ± {choices.standard_error:.1%}",
            f"{choices.accuracy_per_byte:.1%}",
        ]
        for line, choices in found
    ]
    yield from _lay_out(["", "", "right", "by nats/byte"], rows)


def _infilling_table(lines: Sequence[Line]) -> Iterator[str]:
    found = [(line, line.infilling) for line in lines if line.infilling is not None]
    if not found:
        return
    first = found[0][1]
    yield f"infilling: {first.num_gaps} gaps"
    rows = []
    for line, gaps in found:
        above = gaps.nats_per_token - gaps.true_nats_per_token
        sign = "<= " if gaps.is_bound else ""
        sees = _view(line.objective)
        rows.append(
            [
                line.checkpoint,
                line.objective,
                sees,
                f"{sign}{gaps.nats_per_token:.3f}",
                f"{sign}{above:.3f} ± {gaps.excess_error:.3f}",
                f"{gaps.exact_match:.1%} ± {gaps.match_error:.1%}",
            ]
        )
    rows.append(
        ["exact posterior", "", "both sides", f"{first.true_nats_per_token:.3f}", "", f"{first.best_match:.1%}"]
    )
    yield from _lay_out(["", "", "sees", "nats/token", "above the posterior", "exact match"], rows)


def _view(objective: str) -> str:
    """Say what of a gap's surroundings a model of this objective sees."""
    if objective.endswith("autoregressive"):
        return "left side"
    return "left, own block" if objective == "block_diffusion" else "both sides"


def _lay_out(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align columns, names to the left and numbers to the right."""
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        cells = [
            f"{cell:<{width}}" if column < 2 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
