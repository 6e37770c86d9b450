"""What a run ends with: the held-out loss beside baselines and the truth, and a few samples."""

import json
import math
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cli.build import build_generation
from cli.output import say
from cli.sampling import forget_samples_after, generate_samples, keep_samples
from cli.sources import RowShape, build_train_batches, build_val_batches
from config.roots import TrainConfig
from config.sections.data import DataSection, DocumentsSection, PackedSection
from trainkit.data.documents import Shard
from trainkit.state import TrainState
from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.predictor import Generation, Predictor
from transformerlm.likelihood.held_out import count_bytes, row_passages
from transformerlm.likelihood.ngram import NgramBaseline
from transformerlm.likelihood.score import CorpusScore
from transformerlm.likelihood.scorer import LikelihoodSettings, kinds_of, open_likelihood
from transformerlm.models.transformer import TransformerLM
from transformerlm.synthetic.languages import LANGUAGES, KnownLanguage
from transformerlm.synthetic.truth import document_rows, true_nats
from transformerlm.tokenizer import Tokenizer

SCORED_ROWS = 64
MAX_BASELINE_TOKENS = 1_000_000
SUMMARY_FILE = "summary.json"
SHORT_KINDS = {"autoregressive": "causal", "diffusion": "diffusion"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    name: str
    nats_per_token: float
    bits_per_byte: float
    nats_per_document: float | None
    is_bound: bool = False
    document_unit: str = "document"
    """What a document is called."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to score."""

    tokens: Tensor
    """[rows, seq] int64."""
    valid: Tensor
    """[rows, seq] bool."""
    num_bytes: int
    """UTF-8 bytes of the scored tokens: all but the first of each row."""
    truth_nats: float | None
    """Nats that the corpus itself gives these rows, if it knows."""
    language: KnownLanguage | None = None

    def line(self, name: str, nats: float, is_bound: bool = False) -> Line:
        """Turn total nats into the units of the table."""
        per_token = nats / int(self.valid[:, 1:].sum())
        per_document = None
        if self.language is not None and self.truth_nats is not None:
            per_document = nats / self.truth_nats * self.language.entropy_nats()
        unit = "document" if self.language is None else self.language.unit
        return Line(name, per_token, nats / math.log(2) / max(1, self.num_bytes), per_document, is_bound, unit)


def print_summary(
    config: TrainConfig, model: TransformerLM, tokenizer: Tokenizer, folder: Path, state: TrainState
) -> list[list[str]]:
    """Score held-out rows, generate samples, print both, keep them in the run folder; returns the scores as a table."""
    model.eval()
    lines = [] if config.training.skip_validation else compare(config, model, tokenizer, int(state.weight_seen))
    samples = []
    if config.sampling.prompts:
        predictor = Predictor(LoadedModel(model, tokenizer, config.objective.name, folder=None))
        settings = build_generation(config.sampling, model.shape)
        samples = generate_samples(predictor, config.sampling, settings)
        forget_samples_after(folder, state.step - 1)
        keep_samples(folder, state.step, config.sampling, samples)
    language = find_language(config.data)
    table = tabulate(lines) if lines else []
    valid_share = sum(language.contains(sample.text) for sample in samples) if samples and language else None
    parts = [format_table(table) if table else "", format_samples(samples, valid_share, language)]
    parts.append(
        f"generate more: transformerlm-infer --config config/resources/infer.toml --set checkpoint.path={folder}"
    )
    say("\n" + "\n\n".join(part for part in parts if part))
    record = {
        "held_out": [asdict(line) for line in lines],
        "samples": [sample.text for sample in samples],
        "samples_of_the_language": valid_share,
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return table


def compare(config: TrainConfig, model: TransformerLM, tokenizer: Tokenizer, tokens_seen: int) -> list[Line]:
    """Score the model, the unigram and bigram baselines and, where it is known, the truth on the same rows."""
    held_out = take_held_out(config, tokenizer)
    baseline = count_baseline(config, tokenizer, max(2, min(tokens_seen, MAX_BASELINE_TOKENS)))
    tokens, valid = held_out.tokens.numpy(), held_out.valid.numpy()[:, 1:]
    unigram = float(baseline.unigram_nats(tokens[:, 1:])[valid].sum())
    bigram = float(baseline.bigram_nats(tokens[:, :-1], tokens[:, 1:])[valid].sum())
    loaded = LoadedModel(model, tokenizer, config.objective.name, folder=None)
    passages = row_passages(held_out.tokens, held_out.valid)
    lines = [held_out.line("unigram", unigram), held_out.line("bigram", bigram)]
    kinds = kinds_of(loaded.objective)
    for kind in kinds:
        likelihood = open_likelihood(loaded, LikelihoodSettings(seed=config.training.seed), kind)
        score = CorpusScore.of(likelihood.score(passages))
        name = "this model" if len(kinds) == 1 else SHORT_KINDS[kind]
        lines.append(held_out.line(name, score.nats, score.is_bound))
    if held_out.truth_nats is not None:
        lines.append(held_out.line("the truth", held_out.truth_nats))
    return lines


def find_language(data: DataSection) -> KnownLanguage | None:
    """Return the embedded corpus that is trained on, if it is one."""
    return LANGUAGES.get(data.dataset_name) if isinstance(data, DocumentsSection) else None


def take_held_out(config: TrainConfig, tokenizer: Tokenizer) -> HeldOut:
    """Take the first rows of the validation split; of packed synthetic text, rows that each begin
    with a whole document."""
    length, data = config.model.context_length, config.data
    language = find_language(data)
    if language is not None and isinstance(data, PackedSection):
        texts = (language.document(data.val_split, index) for index in count())
        tokens = document_rows(texts, tokenizer, SCORED_ROWS, length)
        valid = torch.ones_like(tokens, dtype=torch.bool)
    else:
        batches = build_val_batches(data, tokenizer, RowShape(length, 0, SCORED_ROWS), Shard())
        batch = next(batches)
        tokens = batch["tokens"]
        valid = batch.get("valid", torch.ones_like(tokens, dtype=torch.bool))
    scored = [row[1:][seen[1:]].tolist() for row, seen in zip(tokens, valid, strict=True)]
    num_bytes = sum(count_bytes(tokenizer, row) for row in scored)
    truth = None
    if language is not None:
        rows = [row[seen].tolist() for row, seen in zip(tokens, valid, strict=True)]
        truth = sum(true_nats(row, tokenizer, language) for row in rows)
    return HeldOut(tokens, valid, num_bytes, truth, language)


def count_baseline(config: TrainConfig, tokenizer: Tokenizer, num_tokens: int) -> NgramBaseline:
    """Count as many training tokens as the model has seen, up to a million."""
    batch = RowShape(config.model.context_length, 0, 1)
    rows = build_train_batches(config.data, tokenizer, batch, Shard())
    wanted = math.ceil(num_tokens / batch.row_length)
    pieces = []
    for row in islice(rows, wanted):
        pieces.append(row["tokens"][row["valid"]] if "valid" in row else row["tokens"][0])
    return NgramBaseline.count(np.concatenate([piece.numpy() for piece in pieces]), tokenizer.vocab_size)


def format_table(table: list[list[str]]) -> str:
    """Lay the comparison out in columns."""
    widths = [max(12, len(title) + 2) for title in table[0][1:]]
    return "\n".join(
        f"{name:<14}" + "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=False))
        for name, *texts in table
    )


def tabulate(lines: list[Line]) -> list[list[str]]:
    """Return the comparison as rows of text, the heading first; "<=" marks bounds."""
    units = [f"nats/{line.document_unit}" for line in lines[:1] if line.nats_per_document is not None]
    rows = [["held-out text", "nats/token", "bits/byte", *units]]
    for line in lines:
        cells = [f"{line.nats_per_token:.3f}", f"{line.bits_per_byte:.3f}"]
        cells += [f"{line.nats_per_document:.1f}"] if line.nats_per_document is not None else []
        rows.append([line.name, *(("<= " if line.is_bound else "") + cell for cell in cells)])
    return rows


def format_samples(samples: list[Generation], num_valid: int | None, language: KnownLanguage | None) -> str:
    """Show the samples, and how many of them are documents of the language."""
    if not samples:
        return ""
    verdict = "" if language is None else f", {num_valid} of {len(samples)} are {language.plural}"
    shown = "\n\n".join(sample.text for sample in samples[:4])
    return f"samples{verdict}:\n\n{shown}"
