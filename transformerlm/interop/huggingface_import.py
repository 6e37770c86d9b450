"""Read a folder of Llama's family: its model and tokenizer become ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from transformerlm.checkpoint import LoadedModel
from transformerlm.interop.huggingface import CONFIG, DIFFUSION_TYPE, WEIGHTS
from transformerlm.interop.llama import HAS_QK_NORM, ForeignModelError, Weights, from_llama, read_shape
from transformerlm.interop.tokenizer_json import TOKENIZER_JSON, read_gpt2, read_tokenizer_json
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import END_OF_TEXT, MASK, Tokenizer, Vocabulary

_EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Adoption:
    """What to change of a foreign vocabulary so that it serves here."""

    end_of_text: str = END_OF_TEXT
    """The special token that ends a document there; here it is named "<|endoftext|>", with the same id."""
    adds_mask_token: bool = False
    """Add "<|mask|>", which diffusion needs, as the last id; its embedding is the mean of all."""


def import_huggingface(folder: Path | str, adoption: Adoption | None = None) -> LoadedModel:
    """Load a LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM folder, or a diffusion model exported from here.

    Raises ForeignModelError, in a sentence, for what is computed otherwise here; ForeignTokenizerError for ids.
    """
    folder, adoption = Path(folder), adoption or Adoption()
    config = read_config(folder)
    is_diffusion = config.get("model_type") == DIFFUSION_TYPE
    try:
        shape = read_shape(config, config["qk_norm"] if is_diffusion else has_qk_norm(config))
        weights = read_weights(folder)
        tokenizer = adopt_tokenizer(read_tokenizer(folder), adoption)
        if adoption.adds_mask_token and tokenizer.mask_id == len(tokenizer.vocabulary) - 1:
            weights = {**weights, **_with_mean_row(weights, tokenizer.mask_id)}
        if len(tokenizer.vocabulary) > len(weights.get(_EMBEDDINGS[0], ())):
            raise ForeignModelError(
                f"the tokenizer has {len(tokenizer.vocabulary)} tokens, more than the model's {shape.vocab_size}"
            )
        # Embeddings behind the tokenizer's last id are padding: no text has such a token.
        shape = replace(shape, vocab_size=len(tokenizer.vocabulary))
        model = TransformerLM(shape)
        model.load_state_dict(from_llama(weights, shape))
    except ForeignModelError as error:
        raise ForeignModelError(f"{folder}: {error}") from None
    except RuntimeError as error:  # sizes that contradict config.json
        raise ForeignModelError(f"{folder}: its weights do not have the sizes that {CONFIG} gives: {error}") from None
    return LoadedModel(model.eval(), tokenizer, "masked_diffusion" if is_diffusion else "autoregressive", None)


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read config.json; raises ForeignModelError."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForeignModelError(f"{path}: not the config.json of a model ({error}); choose another folder") from error
    if not isinstance(config, dict):
        raise ForeignModelError(f"{path}: not the config.json of a model; choose another folder")
    return config


def has_qk_norm(config: Mapping[str, Any]) -> bool:
    """Tell whether the architecture normalises queries and keys; raises ForeignModelError for a foreign one."""
    names = config.get("architectures") or ["unknown"]
    if names[0] not in HAS_QK_NORM:
        known = ", ".join(HAS_QK_NORM)
        raise ForeignModelError(
            f"the architecture {names[0]} computes something else than models here; {known} can be read"
        )
    return HAS_QK_NORM[names[0]]


def read_weights(folder: Path) -> Weights:
    """Read model.safetensors, or the several files that its index names; raises ForeignModelError."""
    index = folder / f"{WEIGHTS}.index.json"
    try:
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        else:
            names = [WEIGHTS]
        weights: Weights = {}
        for name in names:
            weights |= load_file(folder / name)
    except FileNotFoundError as error:
        raise ForeignModelError(
            f"{error.filename or WEIGHTS} is missing; weights are read as safetensors only, so convert others there "
            "(save_pretrained writes them)"
        ) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ForeignModelError(f"its weights are unreadable or truncated ({error})") from error
    wrong = next((name for name, weight in weights.items() if not weight.is_floating_point()), None)
    if wrong is not None:
        raise ForeignModelError(f"the weight {wrong} is {weights[wrong].dtype}; quantized models are not read")
    return weights


def read_tokenizer(path: Path | str) -> Tokenizer:
    """Read a tokenizer.json, or a folder with one or with GPT-2's vocab.json and merges.txt; raises ValueError."""
    path = Path(path)
    if path.is_file():
        return read_tokenizer_json(path)
    if (path / TOKENIZER_JSON).is_file():
        return read_tokenizer_json(path / TOKENIZER_JSON)
    if (path / "merges.txt").is_file():
        return read_gpt2(path / "vocab.json", path / "merges.txt")
    raise ForeignModelError(f"there is neither {TOKENIZER_JSON} nor GPT-2's vocab.json and merges.txt")


def adopt_tokenizer(tokenizer: Tokenizer, adoption: Adoption) -> Tokenizer:
    """Give a tokenizer the special tokens that documents here need; raises ForeignModelError."""
    vocabulary = tokenizer.vocabulary
    specials = dict(vocabulary.special_tokens)
    if adoption.end_of_text not in specials:
        raise ForeignModelError(
            f"its tokenizer has no special token {adoption.end_of_text!r}, which would end a document here; set "
            f"source.end_of_text to the one that does: {', '.join(specials) or 'it has none at all'}"
        )
    tokens = list(vocabulary.tokens)
    if adoption.end_of_text != END_OF_TEXT:
        if END_OF_TEXT in specials:
            raise ForeignModelError(f"its tokenizer has another {END_OF_TEXT}; leave source.end_of_text as it is")
        id = specials[adoption.end_of_text]
        tokens[id] = END_OF_TEXT.encode()
        specials = {END_OF_TEXT if each == id else name: each for name, each in specials.items()}
    if adoption.adds_mask_token and MASK not in specials:
        specials[MASK] = len(tokens)
        tokens.append(MASK.encode())
    return Tokenizer(Vocabulary(tuple(tokens), vocabulary.merges, specials, vocabulary.pattern), tokenizer.backend)


def _with_mean_row(weights: Weights, id: int) -> Weights:
    """Put the mean of all embeddings at an id that is new or only padding."""
    changed = {}
    for name in _EMBEDDINGS:
        if name in weights:
            rows = weights[name][:id].float()
            changed[name] = torch.cat((rows, rows.mean(0, keepdim=True)))
    return changed
