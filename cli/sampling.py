"""Texts generated while a model trains."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from tqdm import tqdm

from cli.build import build_generation
from config.roots import TrainConfig
from config.sections.sampling import SamplingSection
from trainkit.callbacks import Callback
from trainkit.metrics import StepRecord
from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.predictor import Generation, GenerationSettings, Predictor
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer


def generate_samples(predictor: Predictor, section: SamplingSection, settings: GenerationSettings) -> list[Generation]:
    """Generate num_samples texts for each prompt of [sampling]."""
    prompts = [prompt for prompt in section.prompts for _ in range(section.num_samples)]
    return predictor.generate(prompts, settings)


class SamplingCallback(Callback):
    """Show what the model writes every so many steps."""

    def __init__(
        self,
        lend: Callable[[], AbstractContextManager[TransformerLM | None]],
        tokenizer: Tokenizer,
        config: TrainConfig,
    ) -> None:
        """Take how to borrow the model: it gives rank 0 one to generate with, and others None."""
        self.lend, self.tokenizer = lend, tokenizer
        self.objective, self.section = config.objective.name, config.sampling
        self.settings = build_generation(config.sampling, config.model.context_length)
        self.runs_on_every_rank = config.ddp.strategy == "fsdp"  # none of them has the model alone

    def on_step_end(self, record: StepRecord) -> None:
        """Generate after every `every`-th step."""
        if record.step % self.section.every:
            return
        with self.lend() as model:
            if model is None:
                return
            predictor = Predictor(LoadedModel(model, self.tokenizer, self.objective, folder=None))
            samples = generate_samples(predictor, self.section, self.settings)
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to stop training
            for sample in samples:
                tqdm.write(f"step {record.step} | {sample.text}", file=sys.stderr)
