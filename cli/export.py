"""transformerlm-export: turn a checkpoint into what other programs read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, SetKey, run_command

if TYPE_CHECKING:
    from config.roots import ExportConfig
    from transformerlm.checkpoint import LoadedModel

COMMAND = Command(
    name="transformerlm-export",
    summary="Turn a checkpoint into a folder for transformers, a GGUF file for llama.cpp, or a tokenizer alone.",
    config_name="ExportConfig",
    override="export.dtype=bfloat16",
    example="""\
examples:
  transformerlm-export --config config/resources/export.toml
      the newest run becomes the folder exported/
  transformerlm-export --checkpoint runs/my_run --out my_model
      the same for another run, without a configuration file
  transformerlm-export --checkpoint runs/my_run --out my_model.gguf --set export.format=gguf
      one file for llama.cpp

What is written is read back and its logits are compared with the checkpoint's before it appears.
""",
    default_config="export.toml",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, export, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add short forms of the two keys that every call sets."""
    parser.add_argument(
        "--checkpoint", metavar="PATH", action=SetKey, key="checkpoint.path", help="run or checkpoint folder to export"
    )
    parser.add_argument("--out", metavar="PATH", action=SetKey, key="export.output", help="what to make; must be new")


def export(config: "ExportConfig", options: argparse.Namespace) -> int:
    """Load the checkpoint, write what is asked for, say what came out; returns the exit code."""
    section = config.export
    if section.format == "tokenizer":
        export_tokenizer(config)
        return 0
    from transformerlm.checkpoint import load_model
    from transformerlm.interop.gguf_file import export_gguf
    from transformerlm.interop.huggingface import export_huggingface

    loaded = load_model(config.checkpoint.path, weights=config.checkpoint.weights)
    if section.format == "gguf":
        report = export_gguf(loaded, section.output, mode=section.generation_mode, dtype=section.dtype)
    else:
        card = write_card(loaded, config)
        report = export_huggingface(
            loaded, section.output, mode=section.generation_mode, dtype=section.dtype, card=card
        )
    print(f"{report.path}: {report.architecture}, {report.parameters / 1e6:.2f} M parameters in {section.dtype}")
    print(f"read back, its logits are those of the checkpoint: largest difference {report.max_difference:.1e}")
    return 0


def write_card(loaded: "LoadedModel", config: "ExportConfig") -> str:
    """Return the model card, with figures that the run recorded."""
    from cli.run_figures import read_figures
    from transformerlm.interop.huggingface import resolve_mode
    from transformerlm.interop.model_card import render_card

    is_diffusion = resolve_mode(loaded, config.export.generation_mode) == "diffusion"
    figures = read_figures(loaded.folder)
    return render_card(loaded, figures, is_diffusion, config.export.dtype)


def export_tokenizer(config: "ExportConfig") -> None:
    """Write the tokenizer alone; torch is not needed."""
    from transformerlm.checkpoint_description import TOKENIZER_FOLDER, find_checkpoint
    from transformerlm.interop.appearing import appearing
    from transformerlm.interop.tiktoken_ranks import write_tiktoken
    from transformerlm.interop.tokenizer_json import TOKENIZER_JSON, write_tokenizer_json
    from transformerlm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(find_checkpoint(config.checkpoint.path) / TOKENIZER_FOLDER)
    output = Path(config.export.output)
    with appearing(output) as unfinished:
        unfinished.mkdir()
        write_tokenizer_json(tokenizer, unfinished / TOKENIZER_JSON)
        write_tiktoken(tokenizer, unfinished / "tokenizer.tiktoken")
        names = ", ".join(sorted(path.name for path in unfinished.iterdir()))
    print(f"{output}: {tokenizer.vocab_size} tokens as {names}")


if __name__ == "__main__":
    sys.exit(main())
