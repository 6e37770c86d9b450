"""The tokenizer that a configuration names, and a document's tokens. Loads no torch: worker processes use it."""

import numpy as np

from config.sections.data import TokenizerFilesSection
from transformerlm.tokenizer import Tokenizer


def load_tokenizer(section: TokenizerFilesSection) -> Tokenizer:
    """Read the three files of a tokenizer."""
    return Tokenizer.from_files(section.vocab_path, section.merges_path, section.special_tokens_path)


def encode_text(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the ids of a document's text, in which no special token is recognised: [tokens]."""
    return tokenizer.encode_array(text, allowed_special="none")
