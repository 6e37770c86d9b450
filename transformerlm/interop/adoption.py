"""Foreign tokenizers, whatever their files, with the special tokens that documents need here."""

from dataclasses import dataclass
from pathlib import Path

from transformerlm.interop.appearing import ForeignModelError
from transformerlm.interop.tokenizer_json import TOKENIZER_JSON, read_gpt2, read_tokenizer_json
from transformerlm.tokenizer import END_OF_TEXT, MASK, Tokenizer, Vocabulary


@dataclass(frozen=True, slots=True)
class Adoption:
    """What to change of a foreign vocabulary so that it serves here."""

    end_of_text: str = END_OF_TEXT
    """The special token that ends a document there; here it is named "<|endoftext|>", with the same id."""
    adds_mask_token: bool = False
    """Add "<|mask|>", which diffusion needs, as the last id; its embedding is the mean of all."""


def read_tokenizer(path: Path | str) -> Tokenizer:
    """Read a tokenizer.json, or a folder with one or with GPT-2's vocab.json and merges.txt; raises ValueError."""
    path = Path(path)
    if path.is_file():
        return read_tokenizer_json(path)
    if (path / TOKENIZER_JSON).is_file():
        return read_tokenizer_json(path / TOKENIZER_JSON)
    if (path / "merges.txt").is_file():
        return read_gpt2(path / "vocab.json", path / "merges.txt")
    raise ForeignModelError(f"{path}: there is neither {TOKENIZER_JSON} nor GPT-2's vocab.json and merges.txt")


def adopt_tokenizer(tokenizer: Tokenizer, adoption: Adoption) -> Tokenizer:
    """Give a tokenizer the special tokens that documents here need; raises ForeignModelError."""
    vocabulary = tokenizer.vocabulary
    specials = dict(vocabulary.special_tokens)
    if adoption.end_of_text not in specials:
        raise ForeignModelError(
            f"its tokenizer has no special token {adoption.end_of_text!r}, which would end a document here; set "
            f"importing.end_of_text to the one that does: {', '.join(specials) or 'it has none at all'}"
        )
    tokens = list(vocabulary.tokens)
    if adoption.end_of_text != END_OF_TEXT:
        if END_OF_TEXT in specials:
            raise ForeignModelError(f"its tokenizer has another {END_OF_TEXT}; leave importing.end_of_text as it is")
        id = specials[adoption.end_of_text]
        tokens[id] = END_OF_TEXT.encode()
        specials = {END_OF_TEXT if each == id else name: each for name, each in specials.items()}
    if adoption.adds_mask_token and MASK not in specials:
        specials[MASK] = len(tokens)
        tokens.append(MASK.encode())
    return Tokenizer(Vocabulary(tuple(tokens), vocabulary.merges, specials, vocabulary.pattern), tokenizer.backend)
