"""The configurations: the sections that each command reads, and the rules between sections."""

from typing import Any

from pydantic import Field

from config.compatibility import beyond_context, wrong_cache, wrong_mode
from config.section import Section, rule
from config.sections.benchmark import BenchmarkSection
from config.sections.checkpoint import CheckpointSection
from config.sections.checkpointing import CheckpointingSection
from config.sections.data import DataSection, PrepareCorpusSection, TokenizerCorpusSection, missing_split
from config.sections.ddp import DdpSection
from config.sections.evaluation import (
    ChoicesSection,
    EvaluationCorpusSection,
    EvaluationSection,
    InfillingSection,
)
from config.sections.export import ExportSection, ImportingSection
from config.sections.inference import InferenceSection
from config.sections.logging import LoggingSection
from config.sections.model import ModelSection
from config.sections.objective import AnyObjective, ObjectiveSection
from config.sections.optimizer import OptimizerSection
from config.sections.prepare import PrepareSection
from config.sections.sampling import SamplingSection
from config.sections.sweep import SweepSection
from config.sections.tokenizer import TokenizerSection
from config.sections.tokenizer_benchmark import TokenizerBenchmarkSection
from config.sections.train_benchmark import TrainBenchmarkSection
from config.sections.training import TrainingSection
from config.sections.wandb import WandbSection


class TrainConfig(Section):
    """Everything transformerlm-train reads."""

    model: ModelSection
    """The Transformer to train."""
    objective: ObjectiveSection
    """What it learns to predict."""
    optimizer: OptimizerSection
    """How gradients become updates."""
    training: TrainingSection
    """The training loop."""
    data: DataSection
    """The text, and the tokenizer."""
    sampling: SamplingSection = SamplingSection()
    """Texts generated during training."""
    ddp: DdpSection = DdpSection()
    """Several processes at once."""
    logging: LoggingSection = LoggingSection()
    """What is recorded."""
    wandb: WandbSection = WandbSection()
    """Weights & Biases."""
    checkpointing: CheckpointingSection = CheckpointingSection()
    """What is saved."""

    @rule("optimizer.warmup_steps", "training.max_steps")
    def warmup_ends(warmup_steps: int, max_steps: int) -> str | None:
        """Require a warmup that reaches the full learning rate."""
        if warmup_steps < max_steps:
            return None
        return f"{warmup_steps} warmup steps do not end before training.max_steps = {max_steps}; lower them"

    @rule("optimizer.decay_steps", "optimizer.warmup_steps", "training.max_steps")
    def decay_follows_warmup(decay_steps: int | None, warmup_steps: int, max_steps: int) -> str | None:
        """Require a decay that begins after the warmup."""
        if decay_steps is None or warmup_steps >= max_steps or warmup_steps + decay_steps <= max_steps:
            return None
        return (
            f"{decay_steps} steps of decay and {warmup_steps} of warmup do not fit into training.max_steps = "
            f"{max_steps}; use at most {max_steps - warmup_steps}"
        )

    @rule("objective.block_length", "model.context_length")
    def blocks_fit_the_context(block_length: int, context_length: int) -> str | None:
        """Require blocks no longer than a row."""
        if block_length <= context_length:
            return None
        return f"{block_length} is above model.context_length = {context_length}; lower it"

    @rule("objective.warmup_block_lengths", "objective.warmup_block_steps", "training.max_steps")
    def blocks_reach_their_length(lengths: tuple[int, ...], steps: int, max_steps: int) -> str | None:
        """Require a warmup of blocks that ends."""
        if len(lengths) * steps < max_steps:
            return None
        return (
            f"{len(lengths)} x {steps} steps of warmup never reach objective.block_length within training.max_steps = "
            f"{max_steps}; lower objective.warmup_block_steps, or train longer"
        )

    @rule("data.pad_token_id", "model.vocab_size")
    def padding_is_a_token(pad_token_id: int, vocab_size: int) -> str | None:
        """Require an id inside the vocabulary."""
        if pad_token_id < vocab_size:
            return None
        return f"{pad_token_id} is outside the vocabulary; use an id below model.vocab_size = {vocab_size}"

    @rule("data.val_split", "data.data_files", "training.skip_validation")
    def validation_split_is_there(val_split: str, data_files: object, skip_validation: bool) -> str | None:
        """Require a validation split that data_files name, if there is to be validation."""
        problem = None if skip_validation else missing_split(val_split, data_files)
        return f"{problem}, or set training.skip_validation = true" if problem else None

    @rule("sampling.total_length", "model.context_length")
    def samples_fit_the_context(total_length: int | None, context_length: int) -> str | None:
        """Require samples no longer than the model's context."""
        return beyond_context(total_length, context_length)

    @rule("sampling.generation_mode", "objective.name")
    def samples_match_the_objective(generation_mode: str, objective: str) -> str | None:
        """Require the way of generating that the model is trained for."""
        return wrong_mode(generation_mode, objective)

    @rule("sampling.cache", "objective.name")
    def samples_cache_what_the_objective_allows(cache: str, objective: str) -> str | None:
        """Require a cache that fits the model's attention."""
        return wrong_cache(cache, objective)

    @rule("logging.activation_norms", "training.compile")
    def activations_are_seen(activation_norms: bool, compile: bool) -> str | None:
        """Refuse to listen in on a compiled model, which does not call its parts."""
        if activation_norms and compile:
            return "a compiled model does not show its activations; set training.compile = false, or leave this out"
        return None

    @rule("ddp.strategy", "training.precision")
    def fsdp_does_not_scale_losses(strategy: str, precision: str) -> str | None:
        """Refuse float16, whose gradients need a loss scale, with sharded models."""
        if (strategy, precision) == ("fsdp", "float16"):
            return '"fsdp" does not scale losses as float16 needs; use training.precision = "bfloat16" or "float32"'
        return None

    @rule("ddp.backend", "training.device")
    def backend_fits_the_device(backend: str, device: str) -> str | None:
        """Refuse nccl, which talks between GPUs only, on CPUs."""
        if (backend, device) == ("nccl", "cpu"):
            return 'nccl works between GPUs only, and training.device = "cpu"; use "auto" or "gloo"'
        return None


class InferConfig(Section):
    """Everything transformerlm-infer reads; the model's shape, tokenizer and objective come from the checkpoint."""

    checkpoint: CheckpointSection = CheckpointSection()
    """The trained model."""
    inference: InferenceSection = InferenceSection()
    """What to generate."""


class TrainTokenizerConfig(Section):
    """Everything transformerlm-train-tokenizer reads."""

    data: TokenizerCorpusSection
    """The text to learn from."""
    tokenizer: TokenizerSection
    """The vocabulary to make."""


class SweepConfig(Section):
    """Everything transformerlm-sweep reads."""

    checkpoint: CheckpointSection = CheckpointSection()
    """The trained model."""
    inference: InferenceSection = InferenceSection()
    """What all combinations share."""
    sweep: SweepSection = SweepSection()
    """What they differ in."""


class EvalConfig(Section):
    """Everything transformerlm-eval reads; what a section is missing for is not measured."""

    evaluation: EvaluationSection = EvaluationSection()
    """Which checkpoints, and how."""
    data: EvaluationCorpusSection | None = None
    """Text to score."""
    choices: ChoicesSection | None = None
    """Questions to answer."""
    infilling: InfillingSection | None = None
    """Gaps to fill."""

    @rule("data", "choices", "infilling")
    def something_is_measured(data: Any, choices: Any, infilling: Any) -> str | None:
        """Require a task."""
        if data is None and choices is None and infilling is None:
            return "nothing to measure; add [data], [choices] or [infilling]"
        return None


class ExportConfig(Section):
    """Everything transformerlm-export reads."""

    checkpoint: CheckpointSection = CheckpointSection()
    """The trained model."""
    export: ExportSection = ExportSection()
    """What it becomes."""


class ImportConfig(Section):
    """Everything transformerlm-import reads."""

    importing: ImportingSection = ImportingSection()
    """What becomes a checkpoint."""


class PrepareDataConfig(Section):
    """Everything transformerlm-prepare-data reads."""

    data: PrepareCorpusSection
    """The text, and the tokenizer."""
    prepare: PrepareSection
    """The files to make."""


class BenchTokenizerConfig(Section):
    """Everything transformerlm-bench-tokenizer reads."""

    benchmark: TokenizerBenchmarkSection = TokenizerBenchmarkSection(megabytes=10.0)
    """What to measure, and how."""


class BenchTrainConfig(Section):
    """Everything transformerlm-bench-train reads."""

    objective: ObjectiveSection
    """What the model learns to predict."""
    benchmark: TrainBenchmarkSection = TrainBenchmarkSection()
    """What to measure, and for how long."""


class BenchInferConfig(Section):
    """Everything transformerlm-bench-infer reads: a checkpoint, or the shape of a model with random weights."""

    checkpoint: CheckpointSection | None = None
    """The trained model to measure; leave the section out to measure a random one."""
    model: ModelSection | None = None
    """Shape of a random model, instead of [checkpoint]."""
    objective: AnyObjective | None = Field(None, discriminator="name")
    """What that random model is taken to predict."""
    inference: InferenceSection = InferenceSection()
    """What to generate."""
    benchmark: BenchmarkSection = BenchmarkSection()
    """How to measure."""

    @rule("checkpoint", "model", "objective")
    def one_model_to_measure(checkpoint: Any, model: Any, objective: Any) -> str | None:
        """Require either a checkpoint or a random model, and that one whole."""
        if checkpoint is not None and (model is not None or objective is not None):
            return "a checkpoint brings its own model and objective; remove [checkpoint], or [model] and [objective]"
        if checkpoint is None and (model is None or objective is None):
            return "nothing to measure; add [checkpoint] with a path, or both [model] and [objective]"
        return None

    @rule("inference.total_length", "benchmark.prompt_length")
    def something_is_generated(total_length: int | None, prompt_length: int) -> str | None:
        """Require room after the prompt."""
        if total_length is None or total_length > prompt_length:
            return None
        return f"{total_length} leaves nothing to generate after benchmark.prompt_length = {prompt_length}; raise it"

    @rule("inference.total_length", "model.context_length")
    def texts_fit_the_context(total_length: int | None, context_length: int) -> str | None:
        """Require texts no longer than the model's context."""
        return beyond_context(total_length, context_length)

    @rule("inference.generation_mode", "objective.name")
    def mode_matches_the_objective(generation_mode: str, objective: str) -> str | None:
        """Require the way of generating that the model is made for."""
        return wrong_mode(generation_mode, objective)

    @rule("inference.cache", "objective.name")
    def cache_fits_the_objective(cache: str, objective: str) -> str | None:
        """Require a cache that fits the model's attention."""
        return wrong_cache(cache, objective)
