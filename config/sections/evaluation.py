"""[evaluation], [choices] and [infilling]: what transformerlm-eval measures."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section, Seed, rule
from config.sections.data import OneSplitSection, TokenizerFilesSection
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

    dataset_name: str = ""
    """"synthetic/stories", "synthetic/hidden_markov", "text", "json", "parquet", "arrow", or a dataset of the Hugging
    Face Hub; empty with megatron_prefix."""
    split: NonEmptyText = "validation"
    """Split to read."""
    megatron_prefix: str = ""
    """Instead of a dataset: tokens made by transformerlm-prepare-data, the path without .bin or .idx; they are turned
    back into text, which each checkpoint tokenizes for itself."""
    tokenizer: TokenizerFilesSection | None = None
    """The tokenizer that made those tokens. Default: the checkpoints', if they all have the same."""

    @rule("dataset_name", "megatron_prefix")
    def one_source(dataset_name: str, megatron_prefix: str) -> str | None:
        """Require a dataset or tokens, not both."""
        if not dataset_name and not megatron_prefix:
            return "required; name a dataset, or set megatron_prefix to tokens that were prepared"
        if dataset_name and megatron_prefix:
            return f'stands beside megatron_prefix = "{megatron_prefix}"; leave one out (dataset_name = "")'
        return None

    @rule("tokenizer", "megatron_prefix")
    def tokenizer_of_tokens(tokenizer: object, megatron_prefix: str) -> str | None:
        """Refuse a tokenizer that would not be used."""
        if tokenizer is not None and not megatron_prefix:
            return "checkpoints bring their own tokenizers; only megatron_prefix needs one: leave it out"
        return None


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
