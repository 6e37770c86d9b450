"""transformerlm-infer: generate text from a trained model."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from config.roots import InferConfig
    from transformerlm.inference.predictor import GenerationSettings, Predictor

COMMAND = Command(
    name="transformerlm-infer",
    summary="Generate text from a trained model: token by token, or denoised in place, as the model was trained.",
    config_name="InferConfig",
    override="inference.seed=7",
    example="""\
examples:
  transformerlm-infer --config config/resources/infer.toml
      continue the prompt with the newest run
  transformerlm-infer --config config/resources/infer.toml --set inference.prompt="Long ago" \\
      --set inference.temperature=0.7 --set inference.num_samples=5
  transformerlm-infer --config config/resources/infer.toml --set checkpoint.path=runs/my_run > texts.txt
      texts go to standard output, remarks to standard error
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, infer, argv)


def infer(config: "InferConfig", options: argparse.Namespace) -> int:
    """Load the model, generate, print; returns the exit code."""
    check_request(config)
    from cli.build import build_generation
    from transformerlm.inference.predictor import Predictor
    from transformerlm.utils.dtypes import cast_weights

    section = config.inference
    predictor = Predictor.from_checkpoint(config.checkpoint.path, section.device)
    cast_weights(predictor.model, section.precision)
    settings = build_generation(section, predictor.model.shape.context_length)
    prompts = [section.prompt] * section.num_samples
    if sys.stdout.isatty():
        show_live(predictor, prompts, settings)
    else:
        print("\n\n".join(generation.text for generation in predictor.generate(prompts, settings)))
    return 0


def check_request(config: "InferConfig") -> None:
    """Refuse what the checkpoint cannot do before torch and the weights are loaded; raises ValueError."""
    from transformerlm.checkpoint_description import TOKENIZER_FOLDER, find_checkpoint, read_description
    from transformerlm.inference.request import check_lengths, check_mode, encode_prompt
    from transformerlm.tokenizer import Tokenizer

    folder, section = find_checkpoint(config.checkpoint.path), config.inference
    shape, objective = read_description(folder)
    prompt = encode_prompt(Tokenizer.load(folder / TOKENIZER_FOLDER), section.prompt)
    check_lengths([prompt], section.total_length or shape.context_length, shape)
    check_mode(section.generation_mode, objective)


def show_live(predictor: "Predictor", prompts: Sequence[str], settings: "GenerationSettings") -> None:
    """Generate one text after the other, each visible as it appears; the same texts as all at once."""
    from cli.display import LiveText
    from transformerlm.inference.sampling import row_seed

    for row, prompt in enumerate(prompts):
        live = LiveText(sys.stdout)
        live.show(prompt)
        settings_of_row = replace(settings, seed=row_seed(settings.seed, row))
        (generation,) = predictor.generate(
            [prompt], settings_of_row, on_update=lambda _, text, live=live, prompt=prompt: live.show(prompt + text)
        )
        live.finish(generation.text)
        cost = predictor.last_cost
        print(
            f"[{generation.generated_tokens} tokens, {cost.evaluations} passes, {cost.seconds:.2f} s]\n",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
