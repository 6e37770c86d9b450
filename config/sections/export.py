"""[export] and [importing]: models and tokenizers that leave, and others that move in."""

from typing import Literal

from config.section import NonEmptyText, Section


class ExportSection(Section):
    """What a checkpoint becomes."""

    format: Literal["huggingface", "gguf", "tokenizer"] = "huggingface"
    """`huggingface`: a folder for transformers; `gguf`: one file for llama.cpp, autoregressive models only;
    `tokenizer`: a folder with tokenizer.json and the rank file of tiktoken."""
    output: NonEmptyText = "exported"
    """Where it goes, a new folder; for `gguf` a new file."""
    generation_mode: Literal["auto", "autoregressive", "diffusion"] = "auto"
    """For a model trained on both objectives: which of them leaves; `auto` follows the objective."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights in the file."""


class ImportingSection(Section):
    """What is read, and what must be changed of it to serve here."""

    path: NonEmptyText = "exported"
    """A folder for transformers (config.json, safetensors, tokenizer), to become a checkpoint. Or a tokenizer alone:
    tokenizer.json, a rank file of tiktoken, or a folder with tokenizer.json or with GPT-2's vocab.json and merges.txt.
    """
    output: NonEmptyText = "imported"
    """The checkpoint or tokenizer folder to make."""
    end_of_text: NonEmptyText = "<|endoftext|>"
    """The special token that ends a document there; here it is called <|endoftext|> and keeps its id."""
    add_mask_token: bool = False
    """Add <|mask|> as the last token, which training as a diffusion model needs."""
