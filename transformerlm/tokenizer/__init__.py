"""Byte-level byte-pair encoding: text to token ids and back, and how the vocabulary is learned.

Read in this order: pretokenize.py (text to word-like pieces), merging.py (one piece to ids), learning.py (where the
merges come from), vocabulary.py (what is known), tokenizer.py and trainer.py (all of it together), io.py (the three
files). That is a whole tokenizer in plain Python. backend.py says when the compiled one takes over: kernels/README.md
explains it, fast_encoding.py and fast_learning.py call it.
"""

from transformerlm.tokenizer.tokenizer import Tokenizer
from transformerlm.tokenizer.trainer import train_bpe, train_bpe_on_files
from transformerlm.tokenizer.vocabulary import END_OF_TEXT, MASK, Vocabulary

__all__ = ["END_OF_TEXT", "MASK", "Tokenizer", "Vocabulary", "train_bpe", "train_bpe_on_files"]
