"""[prepare]: where prepared tokens go, and how they are made."""

import os
from typing import Annotated

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section


class PrepareSection(Section):
    """Files in Megatron-LM's format, for pipeline_mode = "megatron"."""

    output_dir: NonEmptyText
    """Folder to make: NAME_train_text_document.bin and .idx, the same for validation, and a manifest.json."""
    name: NonEmptyText = "corpus"
    """First part of the files' names."""
    tokenizer_name: NonEmptyText = "tokenizer"
    """A copy of the tokenizer goes along: vocab_NAME.json, merges_NAME.txt, special_tokens_NAME.json."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Part of the documents to hold out [0, 1); a hash of its text decides about each, so copies stay together."""
    num_workers: PositiveInt = Field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that tokenize. Default: one per core."""
    sync_megabytes: PositiveInt = 64
    """After so much text the work is made durable; a killed run goes on from there [MB]."""
