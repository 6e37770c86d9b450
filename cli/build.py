"""From sections of the configuration to objects: each builder takes its section and gives what it describes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from config.sections.checkpointing import CheckpointingSection
from config.sections.ddp import DdpSection
from config.sections.generation import GenerationSettings as GenerationSection
from config.sections.inference import InferenceSection
from config.sections.model import ModelSection
from config.sections.objective import (
    AutoregressiveSection,
    BlockDiffusionSection,
    JointSection,
    MaskingSection,
    ObjectiveSection,
)
from config.sections.optimizer import MuonGroupSection, MuonHiddenSection, MuonSection, OptimizerSection
from config.sections.training import TrainingSection
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.retention import Retention
from trainkit.settings import TrainerSettings
from trainkit.training.optim import AdamWSettings, GroupSettings, MuonSettings, OptimizerSettings
from trainkit.training.schedule import Schedule
from transformerlm.inference.plan import Policy
from transformerlm.inference.predictor import GenerationSettings
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.models.shape import ModelShape
from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.base import LanguageObjective
from transformerlm.objectives.block_diffusion import BlockDiffusion
from transformerlm.objectives.joint import Joint
from transformerlm.objectives.masked_diffusion import MaskedDiffusion
from transformerlm.objectives.noise import SCHEDULES, Noise
from transformerlm.tokenizer import Tokenizer


def build_shape(model: ModelSection, objective: ObjectiveSection) -> ModelShape:
    """Return the model's shape, and what of the objective its users must know."""
    return ModelShape(**model.model_dump(), **objective_shape(objective))


def objective_shape(objective: ObjectiveSection) -> dict[str, Any]:
    """Return the fields of the model's shape that the objective decides."""
    return {
        "shift_logits": isinstance(objective, MaskingSection) and objective.shift_logits,
        "block_length": objective.block_length if isinstance(objective, BlockDiffusionSection) else None,
    }


def build_objective(section: ObjectiveSection, tokenizer: Tokenizer) -> LanguageObjective:
    """Return the training objective; the mask token comes from the tokenizer."""
    return build_objective_over(section, tokenizer.mask_id)


def build_objective_over(section: ObjectiveSection, mask_id: int | None) -> LanguageObjective:
    """Return the training objective over a vocabulary whose mask token is `mask_id`."""
    if isinstance(section, AutoregressiveSection):
        return Autoregressive()
    assert mask_id is not None, "config/checks.py requires a mask token"
    if isinstance(section, BlockDiffusionSection):
        return BlockDiffusion(
            mask_id=mask_id,
            noise=build_noise(section),
            head=section.head,
            gather_capacity=section.gather_capacity,
            is_first_given=section.shift_logits,
            block_length=section.block_length,
            mixed_lengths=section.mixed_block_lengths,
            warmup_lengths=section.warmup_block_lengths,
            warmup_steps=section.warmup_block_steps,
        )
    diffusion = MaskedDiffusion(
        mask_id=mask_id,
        noise=build_noise(section),
        random_length_probability=section.random_length_probability,
        head=section.head,
        gather_capacity=section.gather_capacity,
        is_first_given=section.shift_logits,
        annealing_steps=section.annealing_steps,
    )
    if isinstance(section, JointSection):
        initial_alpha = section.alpha if section.initial_alpha is None else section.initial_alpha
        return Joint(diffusion, section.alpha, initial_alpha, section.alpha_steps)
    return diffusion


def build_noise(section: MaskingSection) -> Noise:
    """Return how masks are drawn."""
    return Noise(
        schedule=SCHEDULES[section.schedule](section.noise_epsilon),
        draw=section.mask_draw,
        lowest=section.min_mask_rate,
        highest=section.max_mask_rate,
    )


def build_schedule(section: OptimizerSection, max_steps: int) -> Schedule:
    """Return the learning rate as a function of the step."""
    return Schedule(
        name=section.schedule,
        max_learning_rate=section.max_learning_rate,
        max_steps=max_steps,
        min_learning_rate=section.min_learning_rate,
        warmup_steps=section.warmup_steps,
        decay_steps=section.decay_steps or 0,
    )


def build_optimizer_settings(section: OptimizerSection) -> OptimizerSettings:
    """Return the optimizer's settings; its learning rate is the schedule's."""
    if not isinstance(section, MuonSection):
        return AdamWSettings(betas=section.betas, eps=section.eps, weight_decay=section.weight_decay)

    def group(of: MuonGroupSection | MuonHiddenSection) -> GroupSettings:
        scale = (of.max_learning_rate or section.max_learning_rate) / section.max_learning_rate
        return GroupSettings(section.weight_decay if of.weight_decay is None else of.weight_decay, scale)

    groups = section.muon
    return MuonSettings(
        momentum=section.momentum,
        betas=section.betas,
        eps=section.eps,
        hidden=group(groups.hidden),
        head=group(groups.head),
        embedding=group(groups.embedding),
        vector=group(groups.vector),
    )


def build_trainer_settings(
    training: TrainingSection,
    optimizer: OptimizerSection,
    log_every: int,
    checkpointing: CheckpointingSection,
    flops_per_token: float | None = None,
) -> TrainerSettings:
    """Return what the training loop needs to know."""
    return TrainerSettings(
        schedule=build_schedule(optimizer, training.max_steps),
        optimizer=build_optimizer_settings(optimizer),
        grad_accum_steps=training.grad_accum_steps,
        grad_clip_norm=optimizer.grad_clip_norm or None,
        precision=training.precision,
        average_decay=optimizer.ema_decay,
        compile=training.compile,
        seed=training.seed,
        on_nonfinite=training.on_nonfinite,
        spike_deviations=training.spike_deviations,
        flops_per_weight=flops_per_token,
        log_every=log_every,
        save_every=checkpointing.every,
        save_in_background=checkpointing.in_background,
    )


def build_checkpoints(section: CheckpointingSection, run: Path) -> CheckpointManager:
    """Return what keeps the checkpoints of the run in folder `run`."""
    retention = Retention(section.keep_last, section.keep_best, section.keep_every)
    remote_url = f"{section.remote_url.rstrip('/')}/{run.name}" if section.remote_url else ""
    return CheckpointManager(run / "checkpoints", retention, run=run, remote_url=remote_url)


def share_model(settings: TrainerSettings, ddp: DdpSection) -> TrainerSettings:
    """Return the settings with how processes share the model."""
    return replace(settings, strategy=ddp.strategy, recompute_blocks=ddp.activation_checkpointing)


def build_policy(section: GenerationSection) -> Policy:
    """Return how a diffusion step chooses what to keep."""
    return Policy(
        name=section.remasking,
        threshold=section.confidence_threshold,
        factor=section.confidence_factor,
        entropy_bound=section.entropy_bound,
        remask_share=section.remask_share,
        is_end_last=section.end_last,
    )


def build_generation(section: GenerationSection, shape: ModelShape) -> GenerationSettings:
    """Return sampling settings, with what is left out filled in from the model's shape."""
    total_length = section.total_length or shape.context_length
    sampling = SamplingSettings(
        section.temperature, section.top_k, section.top_p, section.min_p, section.repetition_penalty
    )
    return GenerationSettings(
        total_length=total_length,
        sampling=sampling,
        seed=section.seed,
        mode=section.generation_mode,
        stop=section.stop,
        min_new_tokens=section.min_new_tokens,
        ignore_eos=section.ignore_eos,
        is_compiled=isinstance(section, InferenceSection) and section.compile,
        draft_length=section.draft_length,
        steps=section.steps,
        block_length=section.block_length or shape.block_length or total_length,
        policy=build_policy(section),
        cache=section.cache,
        cfg_scale=section.cfg_scale,
    )
