"""Load checkpoints one after the other, and measure each on the same tasks."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from cli.corpora import read_texts
from cli.prepared import decode_documents, open_tokens
from cli.tokens import load_tokenizer
from config.roots import EvalConfig
from config.sections.evaluation import EvaluationCorpusSection
from transformerlm.checkpoint import load_model
from transformerlm.checkpoint_description import (
    TOKENIZER_FOLDER,
    CheckpointError,
    find_checkpoint,
    read_description,
)
from transformerlm.evaluation.choices import Question, read_questions, score_choices, story_questions
from transformerlm.evaluation.infilling import Gap, make_gaps, score_gaps
from transformerlm.evaluation.report import Line, TextResult
from transformerlm.evaluation.texts import HeldOutText
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.likelihood.scorer import LikelihoodKind, LikelihoodSettings, kinds_of, open_likelihood
from transformerlm.models.shape import ModelShape
from transformerlm.synthetic.languages import LANGUAGES
from transformerlm.tokenizer import Tokenizer
from transformerlm.utils.dtypes import cast_weights


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint whose weights are not loaded yet."""

    path: str
    folder: Path
    shape: ModelShape
    objective: str
    tokenizer: Tokenizer


@dataclass(slots=True)
class Tasks:
    """What is measured; what depends on a tokenizer is made once for each that differs."""

    config: EvalConfig
    texts: list[str]
    questions: list[Question]
    context_length: int
    laid_out: dict[str, tuple[HeldOutText | None, list[Gap]]] = field(default_factory=dict)

    def for_tokenizer(self, tokenizer: Tokenizer) -> tuple[HeldOutText | None, list[Gap]]:
        """Return the text and the gaps as this tokenizer's tokens."""
        key = tokenizer.fingerprint()
        if key not in self.laid_out:
            self.laid_out[key] = (self._lay_out_text(tokenizer), self._make_gaps(tokenizer))
        return self.laid_out[key]

    def _lay_out_text(self, tokenizer: Tokenizer) -> HeldOutText | None:
        if self.config.data is None:
            return None
        layout, language = self.config.evaluation.layout, LANGUAGES.get(self.config.data.dataset_name)
        return HeldOutText.lay_out(self.texts, tokenizer, self.context_length, layout, language)

    def _make_gaps(self, tokenizer: Tokenizer) -> list[Gap]:
        section = self.config.infilling
        if section is None:
            return []
        seed = self.config.evaluation.seed
        return make_gaps(section.source, tokenizer, section.gap_length, section.num_gaps, self.context_length, seed)


def measure_all(config: EvalConfig, paths: Sequence[str]) -> Iterator[Line]:
    """Yield a line for each checkpoint, and one for each likelihood of a model that has two.

    Raises ValueError, naming all checkpoints that are not there, or whose tokens cannot be compared.
    """
    candidates = find_candidates(paths)
    check_comparable(config, candidates)
    tasks = make_tasks(config, candidates)
    jobs = [(candidate, kind) for candidate in candidates for kind in choose_kinds(config, candidate)]
    for candidate, kind in tqdm(jobs, desc="checkpoints", file=sys.stderr, disable=None):
        yield measure(config, candidate, kind, tasks)


def find_candidates(paths: Sequence[str]) -> list[Candidate]:
    """Read the descriptions of all checkpoints; raises ValueError naming every one that has none."""
    found, problems = [], []
    for path in paths:
        try:
            folder = find_checkpoint(path)
            shape, objective = read_description(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        found.append(Candidate(path, folder, shape, objective, Tokenizer.load(folder / TOKENIZER_FOLDER)))
    if problems:
        raise ValueError("\n".join(problems))
    return found


def check_comparable(config: EvalConfig, candidates: Sequence[Candidate]) -> None:
    """Refuse rows that would hold other text for other checkpoints; raises ValueError."""
    fingerprints = {candidate.tokenizer.fingerprint() for candidate in candidates}
    if config.data is not None and config.evaluation.layout == "packed" and len(fingerprints) > 1:
        raise ValueError(
            "evaluation.layout: rows of so many tokens hold other text with another tokenizer, and these checkpoints "
            f'have {len(fingerprints)} different ones; set evaluation.layout = "documents" and compare bits per byte'
        )
    length = config.evaluation.context_length
    for candidate in candidates:
        if length is not None and length > candidate.shape.context_length:
            raise ValueError(
                f"evaluation.context_length: {length} exceeds the {candidate.shape.context_length} tokens of "
                f"{candidate.path}; lower it, or leave it out"
            )


def make_tasks(config: EvalConfig, candidates: Sequence[Candidate]) -> Tasks:
    """Read the text and the questions."""
    texts = [] if config.data is None else list(read_held_out(config.data, candidates))
    questions: list[Question] = []
    if config.choices is not None:
        wanted = config.choices.max_questions
        questions = (
            read_questions(config.choices.file)[:wanted]
            if config.choices.file
            else story_questions(wanted, config.evaluation.seed)
        )
    shortest_context = min(candidate.shape.context_length for candidate in candidates)
    return Tasks(config, texts, questions, config.evaluation.context_length or shortest_context)


def read_held_out(data: EvaluationCorpusSection, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Yield the documents to score; raises ValueError if nobody knows what prepared tokens mean."""
    if not data.megatron_prefix:
        yield from read_texts(data, data.split, data.max_documents)
        return
    tokenizers = {candidate.tokenizer.fingerprint(): candidate.tokenizer for candidate in candidates}
    if data.tokenizer is None and len(tokenizers) > 1:
        raise ValueError(
            f"data.tokenizer: required, because these checkpoints have {len(tokenizers)} different ones; name the "
            "files of the one that made the tokens"
        )
    (tokenizer,) = tokenizers.values() if data.tokenizer is None else (load_tokenizer(data.tokenizer),)
    dataset = open_tokens(data.megatron_prefix, tokenizer)
    yield from islice(decode_documents(dataset, tokenizer), data.max_documents)


def choose_kinds(config: EvalConfig, candidate: Candidate) -> tuple[LikelihoodKind, ...]:
    """Return the likelihoods to take of a checkpoint: of a model that has two both, unless one was asked for."""
    wanted = config.evaluation.likelihood
    kinds = kinds_of(candidate.objective)
    return kinds if wanted == "auto" and len(kinds) > 1 else (wanted,)


def measure(config: EvalConfig, candidate: Candidate, kind: LikelihoodKind, tasks: Tasks) -> Line:
    """Load a checkpoint and run every task on it."""
    from trainkit.distributed.parallel import choose_device

    section = config.evaluation
    loaded = load_model(candidate.folder, choose_device(section.device))
    cast_weights(loaded.model, section.precision)
    settings = LikelihoodSettings(section.draws, section.seed, section.mask_draw, section.batch_size)
    likelihood = open_likelihood(loaded, settings, kind)
    text, gaps = tasks.for_tokenizer(candidate.tokenizer)
    choices = infilling = None
    if tasks.questions:
        choices = score_choices(likelihood, candidate.tokenizer, tasks.questions, tasks.context_length)
    if config.infilling is not None:
        length = candidate.shape.context_length
        generation = GenerationSettings(
            total_length=length,
            block_length=candidate.shape.block_length or length,
            mode="auto" if kind == "auto" else kind,
        )
        infilling = score_gaps(likelihood, Predictor(loaded), gaps, generation)
    return Line(
        candidate.path,
        candidate.objective if kind == "auto" else f"{candidate.objective}, {kind}",
        None if text is None else TextResult.measure(likelihood, text),
        choices,
        infilling,
    )
