"""Texts generated while a model trains."""

import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

from cli.build import build_generation
from cli.output import remark
from config.roots import TrainConfig
from config.sections.sampling import SamplingSection
from trainkit.callbacks import Callback
from trainkit.logging.jsonl import drop_records_after
from trainkit.report.run_report import SAMPLES_NAME
from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.predictor import Generation, GenerationSettings, Predictor
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer


def generate_samples(predictor: Predictor, section: SamplingSection, settings: GenerationSettings) -> list[Generation]:
    """Generate num_samples texts for each prompt of [sampling]."""
    prompts = [prompt for prompt in section.prompts for _ in range(section.num_samples)]
    return predictor.generate(prompts, settings)


def keep_samples(folder: Path, step: int, section: SamplingSection, samples: list[Generation]) -> None:
    """Add samples to the run's samples.jsonl; a full disk costs these, not the run."""
    prompts = [prompt for prompt in section.prompts for _ in range(section.num_samples)]
    try:
        with (folder / SAMPLES_NAME).open("a", encoding="utf-8") as file:
            for prompt, sample in zip(prompts, samples, strict=True):
                file.write(json.dumps({"step": step, "prompt": prompt, "text": sample.text}) + "\n")
    except OSError as error:
        remark(f"the samples of step {step} were not kept ({error})")


def forget_samples_after(folder: Path, step: int) -> None:
    """Drop the samples of later steps, which a resumed run draws again."""
    with contextlib.suppress(FileNotFoundError):
        drop_records_after(folder / SAMPLES_NAME, step)


class SamplingCallback(Callback):
    """Show what the model writes every so many steps, and keep it for the report."""

    def __init__(
        self,
        lend: Callable[[], AbstractContextManager[TransformerLM | None]],
        tokenizer: Tokenizer,
        config: TrainConfig,
        folder: Path,
        is_first: bool,
    ) -> None:
        """Take how to borrow the model: it gives rank 0 one to generate with, and others None."""
        self.lend, self.tokenizer, self.folder = lend, tokenizer, folder
        self.objective, self.section = config.objective.name, config.sampling
        self.settings = build_generation(config.sampling, config.model.context_length)
        self.runs_on_every_rank = config.ddp.strategy == "fsdp"  # none of them has the model alone
        self.is_first = is_first

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Forget what an earlier session showed of the steps to come, this one's among them."""
        if self.is_first:
            forget_samples_after(self.folder, step - 1)

    def on_step_start(self, step: int) -> None:
        """Generate where `every` steps are done, before the next one; the last step's belong to the summary."""
        done = step - 1
        if done == 0 or done % self.section.every:
            return
        with self.lend() as model:
            if model is None:
                return
            predictor = Predictor(LoadedModel(model, self.tokenizer, self.objective, folder=None))
            samples = generate_samples(predictor, self.section, self.settings)
        keep_samples(self.folder, done, self.section, samples)
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to stop training
            for sample in samples:
                tqdm.write(f"step {done} | {sample.text}", file=sys.stderr)
