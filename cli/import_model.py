"""transformerlm-import: make a checkpoint, or a tokenizer, from what other programs wrote."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, SetKey, run_command

if TYPE_CHECKING:
    from config.roots import ImportConfig
    from config.sections.export import ImportingSection
    from transformerlm.tokenizer import Tokenizer

COMMAND = Command(
    name="transformerlm-import",
    summary="Make a checkpoint from a folder of Llama's family, or a tokenizer from tokenizer.json and the like.",
    config_name="ImportConfig",
    override="importing.add_mask_token=true",
    example="""\
examples:
  transformerlm-import --folder my/llama --out runs/llama
      LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM; then, for instance,
      transformerlm-infer --config config/resources/infer.toml --set checkpoint.path=runs/llama
  transformerlm-import --folder my/llama --out runs/llama --set importing.add_mask_token=true
      to be trained on as a diffusion model, with --set training.init_from=runs/llama
  transformerlm-import --folder my/tokenizer.json --out data/my_tokenizer
      the tokenizer alone; a rank file of tiktoken and the two files of GPT-2 are read as well
""",
    default_config="import.toml",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, import_model, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add short forms of the two keys that every call sets."""
    parser.add_argument("--folder", metavar="PATH", action=SetKey, key="importing.path", help="what to read")
    parser.add_argument(
        "--out", metavar="PATH", action=SetKey, key="importing.output", help="what to make; must be new"
    )


def import_model(config: "ImportConfig", options: argparse.Namespace) -> int:
    """Read, write as ours, say what came in; returns the exit code."""
    section = config.importing
    path, output = Path(section.path), Path(section.output)
    if path.is_file() or not (path / "config.json").is_file():
        tokenizer = read_foreign_tokenizer(path, section)
        from transformerlm.interop.appearing import appearing

        with appearing(output) as unfinished:
            tokenizer.save(unfinished)
        print(f"{output}: a tokenizer of {tokenizer.vocab_size} tokens, pattern {tokenizer.vocabulary.pattern}")
        return 0
    from trainkit.checkpointing.manifest import write_manifest
    from transformerlm.checkpoint import save_model
    from transformerlm.interop.adoption import Adoption
    from transformerlm.interop.appearing import appearing
    from transformerlm.interop.huggingface_import import import_huggingface

    loaded = import_huggingface(path, Adoption(section.end_of_text, section.add_mask_token))
    with appearing(output) as unfinished:
        unfinished.mkdir()
        save_model(loaded, unfinished)
        write_manifest(unfinished)
    shape = loaded.model.shape
    print(
        f"{output}: {loaded.objective} model, {loaded.model.parameter_count() / 1e6:.2f} M parameters, "
        f"{shape.vocab_size} tokens, context of {shape.context_length}"
    )
    print(f"generate: transformerlm-infer --config config/resources/infer.toml --set checkpoint.path={output}")
    return 0


def read_foreign_tokenizer(path: Path, section: "ImportingSection") -> "Tokenizer":
    """Read a tokenizer by what its file or folder is called; torch is not needed."""
    from transformerlm.interop.adoption import Adoption, adopt_tokenizer, read_tokenizer
    from transformerlm.interop.appearing import ForeignModelError
    from transformerlm.interop.tiktoken_ranks import read_tiktoken

    tokenizer = read_tiktoken(path) if path.suffix == ".tiktoken" else read_tokenizer(path)
    try:
        return adopt_tokenizer(tokenizer, Adoption(section.end_of_text, section.add_mask_token))
    except ForeignModelError as error:
        raise ForeignModelError(f"{path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
