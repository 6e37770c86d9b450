"""Read a folder of Llama's family: its model and tokenizer become ours."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from transformerlm.checkpoint import LoadedModel
from transformerlm.interop.adoption import Adoption, adopt_tokenizer, read_tokenizer
from transformerlm.interop.appearing import ForeignModelError
from transformerlm.interop.huggingface import CONFIG, DIFFUSION_TYPE, WEIGHTS
from transformerlm.interop.llama import HAS_QK_NORM, Weights, from_llama, read_shape
from transformerlm.models.transformer import TransformerLM

_EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


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
        foreign = read_tokenizer(folder)
        tokenizer = adopt_tokenizer(foreign, adoption)
        if tokenizer.mask_id is not None and foreign.mask_id is None:
            weights = {**weights, **_with_mean_row(weights, tokenizer.mask_id)}
        if len(tokenizer.vocabulary) > len(weights.get(_EMBEDDINGS[0], ())):
            raise ForeignModelError(
                f"the tokenizer has {len(tokenizer.vocabulary)} tokens, more than the model's {shape.vocab_size}"
            )
        # Embeddings behind the tokenizer's last id are padding: no text has such a token.
        is_shifted = is_diffusion and config.get("shift_logits", False)
        shape = replace(shape, vocab_size=len(tokenizer.vocabulary), shift_logits=is_shifted)
        model = TransformerLM(shape)
        fill_model(model, from_llama(weights, shape))
    except ForeignModelError as error:
        raise ForeignModelError(f"{folder}: {error}") from None
    return LoadedModel(model.eval(), tokenizer, "masked_diffusion" if is_diffusion else "autoregressive", None)


def fill_model(model: TransformerLM, state: Weights) -> None:
    """Load weights of the right names; raises ForeignModelError if a size contradicts config.json."""
    for name, weight in model.state_dict().items():
        if weight.shape != state[name].shape:
            raise ForeignModelError(
                f"{name} has size {tuple(state[name].shape)}, and {CONFIG} says {tuple(weight.shape)}"
            )
    model.load_state_dict(state)


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


def _with_mean_row(weights: Weights, id: int) -> Weights:
    """Put the mean of all embeddings at an id that is new or only padding."""
    changed = {}
    for name in _EMBEDDINGS:
        if name in weights:
            rows = weights[name][:id].float()
            changed[name] = torch.cat((rows, rows.mean(0, keepdim=True)))
    return changed
