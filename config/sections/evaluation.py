"""[evaluation], [choices] and [infilling]: what transformerlm-eval measures."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section, Seed, rule
from config.sections.data import OneSplitSection
from config.sections.training import Device, Precision


class EvaluationSection(Section):
    """[evaluation]: which checkpoints, and how their likelihoods are found."""

    checkpoints: Annotated[tuple[NonEmptyText, ...], Field(strict=False, min_length=1)] = ("runs/latest",)
    """Run or checkpoint folders; each becomes a line of every table."""
    likelihood: Literal["auto", "autoregressive", "diffusion"] = "auto"
    """Which likelihood of a model that has two: `auto` prints both."""
    layout: Literal["packed", "documents"] = "packed"
    """`packed`: rows that each begin with a whole document and are filled up with more, as in packed training; what
    does not fit is left out. `documents`: each document by itself, whole, in windows if it is too long."""
    context_length: PositiveInt | None = None
    """Longest row or window [tokens]. Default: the smallest context length of the checkpoints."""
    draws: PositiveInt = 16
    """Random masks per row, of bounds; exact likelihoods draw none."""
    mask_draw: Literal["exact_count", "complementary", "stratified", "iid"] = "exact_count"
    """How they are drawn; all estimate the same bound, the first two with the least variance."""
    seed: Seed = 0
    """Of the masks, and of the built-in questions and gaps."""
    batch_size: PositiveInt = 32
    """Rows per pass; the results do not depend on it."""
    device: Device = "auto"
    """Where to run; `auto` takes CUDA if there is a GPU."""
    precision: Precision = "auto"
    """Type of the matrix multiplications; `auto` is bfloat16 on a GPU that has it, else float32."""

    @rule("mask_draw", "draws")
    def pairs_need_an_even_number(mask_draw: str, draws: int) -> str | None:
        """Require whole pairs."""
        if mask_draw == "complementary" and draws % 2:
            return f'"complementary" masks come in pairs, and draws = {draws}; use {draws + 1}'
        return None


class EvaluationCorpusSection(OneSplitSection):
    """[data] of transformerlm-eval: the text to score; each checkpoint brings its own tokenizer."""

    split: NonEmptyText = "validation"
    """Split to read."""


class ChoicesSection(Section):
    """[choices]: multiple choice, answered by likelihood."""

    file: str = ""
    """JSON lines of `{"question": "...", "options": ["...", "..."], "answer": 0}`; empty for the built-in questions:
    which ending keeps a story consistent?"""
    max_questions: PositiveInt = 100
    """How many are asked."""


class InfillingSection(Section):
    """[infilling]: gaps whose exact posterior is known."""

    source: Literal["synthetic/stories", "synthetic/hidden_markov"]
    """The language to take documents from; the checkpoints' own, or nothing can be expected of them."""
    gap_length: PositiveInt = 1
    """Length of a gap [tokens]."""
    num_gaps: Annotated[int, Field(ge=2)] = 100
    """How many are filled."""
