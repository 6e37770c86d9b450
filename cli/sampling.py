"""Texts generated while a model trains."""

import contextlib
import sys

from tqdm import tqdm

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
        model: TransformerLM,
        tokenizer: Tokenizer,
        objective: str,
        section: SamplingSection,
        settings: GenerationSettings,
    ) -> None:
        self.predictor = Predictor(LoadedModel(model, tokenizer, objective, folder=None))
        self.section, self.settings = section, settings

    def on_step_end(self, record: StepRecord) -> None:
        """Generate after every `every`-th step, leaving the model in training mode."""
        if record.step % self.section.every:
            return
        model = self.predictor.model
        was_training = model.training
        samples = generate_samples(self.predictor, self.section, self.settings)
        model.train(was_training)
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to stop training
            for sample in samples:
                tqdm.write(f"step {record.step} | {sample.text}", file=sys.stderr)
