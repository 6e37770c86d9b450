"""[tokenizer]: what transformerlm-train-tokenizer makes."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from config.section import NonEmptyText, Section, rule

NUM_BYTES = 256
END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"


class TokenizerSection(Section):
    """A byte-level BPE vocabulary."""

    vocab_size: PositiveInt
    """Number of token ids: 256 bytes, the merges, and the special tokens."""
    special_tokens: Annotated[tuple[NonEmptyText, ...], Field(strict=False)] = (END_OF_TEXT, MASK)
    """Tokens that text never merges into; they take the last ids, in this order."""
    pattern: NonEmptyText = "gpt2"
    """How text is cut before merging: "gpt2", or a regular expression of your own."""
    output_dir: NonEmptyText
    """Folder for vocab.json, merges.txt, special_tokens.json, and manifest.json, which says how they were made."""
    threads: PositiveInt | Literal["auto"] = "auto"
    """Threads that read and count; "auto" takes one for each core. The vocabulary does not depend on it."""
    backend: Literal["auto", "numba", "python"] = "auto"
    """Kernels: "numba" is fast, "python" is the readable reference, "auto" chooses by size. All learn the same."""

    @rule("vocab_size", "special_tokens")
    def vocabulary_has_room(vocab_size: int, special_tokens: tuple[str, ...]) -> str | None:
        """Require an id for every byte and every special token."""
        least = NUM_BYTES + len(special_tokens)
        if vocab_size >= least:
            return None
        return f"{vocab_size} is below {least} = {NUM_BYTES} bytes + {len(special_tokens)} special tokens; raise it"

    @rule("special_tokens")
    def special_tokens_serve(special_tokens: tuple[str, ...]) -> str | None:
        """Require each once, and the one that ends a document."""
        twice = sorted({token for token in special_tokens if special_tokens.count(token) > 1})
        if twice:
            return f"{', '.join(twice)} given twice; remove one"
        return None if END_OF_TEXT in special_tokens else f'"{END_OF_TEXT}" is missing; training needs it, add it'
