"""Write a model as a folder for transformers, checked before it appears.

    config.json  model.safetensors  generation_config.json
    tokenizer.json  tokenizer_config.json  special_tokens_map.json  README.md

An autoregressive model becomes a LlamaForCausalLM, with QK-norm a Qwen3ForCausalLM. A masked-diffusion model computes
the same without the causal mask, for which transformers has no class: its folder carries one (remote_code/), loaded by
AutoModel.from_pretrained(folder, trust_remote_code=True). The weights have the same names in both.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.request import abilities_of, choose_mode
from transformerlm.interop.appearing import ForeignModelError, appearing
from transformerlm.interop.llama import describe_shape, to_llama
from transformerlm.interop.plain_llama import plain_logits
from transformerlm.interop.tokenizer_json import TOKENIZER_JSON, write_tokenizer_json
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import END_OF_TEXT, MASK, Tokenizer
from transformerlm.utils.dtypes import dtype_from_name

CONFIG, WEIGHTS = "config.json", "model.safetensors"
DIFFUSION_TYPE = "transformerlm_masked_diffusion"
REMOTE_CODE = Path(__file__).parent / "remote_code"
DTYPES = ("float32", "bfloat16")

# float64 on both sides leaves only the rounding of our rotary tables, which are float32.
TOLERANCE = 1e-5
_CHECKED_ROWS, _CHECKED_TOKENS = 2, 128


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how far it is from the original."""

    path: Path
    architecture: str
    parameters: int
    max_difference: float
    """Largest difference of a logit, the folder's own weights computed by plain_llama.py in float64."""


def export_huggingface(
    loaded: LoadedModel,
    folder: Path | str,
    *,
    mode: str = "auto",
    dtype: str = "float32",
    card: str | None = None,
) -> ExportReport:
    """Write a model, its tokenizer and a README.md (`card`) into a new folder.

    mode: "autoregressive" or "diffusion", for models that do both; "auto" follows the objective.
    dtype: "float32" or "bfloat16", the type of the weights in the file.
    Raises ForeignModelError, in a sentence, for what the other side cannot compute; nothing is then left behind.
    """
    folder = Path(folder)
    is_diffusion = resolve_mode(loaded, mode) == "diffusion"
    config = describe_model(loaded, is_diffusion) | {"dtype": dtype, "torch_dtype": dtype}
    weights = to_llama(cast_state(loaded.model, dtype), loaded.model.shape)
    with appearing(folder) as unfinished:
        unfinished.mkdir()
        _write_json(unfinished / CONFIG, config)
        save_file(weights, unfinished / WEIGHTS, metadata={"format": "pt"})
        _write_json(unfinished / "generation_config.json", describe_generation(loaded, is_diffusion))
        write_tokenizer_files(loaded.tokenizer, loaded.model.shape.context_length, unfinished)
        if is_diffusion:
            for source in REMOTE_CODE.glob("*.py"):
                shutil.copyfile(source, unfinished / source.name)
        if card is not None:
            (unfinished / "README.md").write_text(card, encoding="utf-8")
        read_config = json.loads((unfinished / CONFIG).read_text(encoding="utf-8"))
        read_weights = load_file(unfinished / WEIGHTS)
        difference = measure_difference(loaded.model, read_config, read_weights, dtype, is_causal=not is_diffusion)
    return ExportReport(folder, config["architectures"][0], count_parameters(loaded.model), difference)


def count_parameters(model: TransformerLM) -> int:
    """Count the parameters that leave: tied ones once, without the padding of the vocabulary."""
    shape = model.shape
    matrices = 1 if shape.tie_embeddings else 2
    return model.parameter_count() - matrices * (shape.padded_vocab_size - shape.vocab_size) * shape.d_model


def resolve_mode(loaded: LoadedModel, mode: str) -> str:
    """Return "autoregressive" or "diffusion"; raises ForeignModelError for weights that have no form there."""
    chosen = choose_mode(mode, loaded.objective)
    if chosen == "diffusion" and abilities_of(loaded.objective).is_block_causal:
        raise ForeignModelError(
            "a block-diffusion model denoises block by block against a cache, which no format written here can say; "
            "generate with transformerlm-infer, or export a masked-diffusion or autoregressive model"
        )
    if chosen == "verified":
        raise ForeignModelError("generation_mode = 'verified' is a way to sample here; use autoregressive or diffusion")
    return chosen


def describe_model(loaded: LoadedModel, is_diffusion: bool) -> dict[str, object]:
    """Return the content of config.json."""
    shape, tokenizer = loaded.model.shape, loaded.tokenizer
    if len(tokenizer.vocabulary) != shape.vocab_size:
        raise ForeignModelError(
            f"the model has {shape.vocab_size} tokens and its tokenizer {len(tokenizer.vocabulary)}; they must agree"
        )
    end = tokenizer.end_of_text_id
    common = describe_shape(shape) | {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    if is_diffusion:
        home = "modeling_transformerlm"
        classes = {
            "AutoConfig": "configuration_transformerlm.MaskedDiffusionConfig",
            "AutoModel": f"{home}.MaskedDiffusionLM",
            "AutoModelForMaskedLM": f"{home}.MaskedDiffusionLM",
        }
        own = {"model_type": DIFFUSION_TYPE, "architectures": ["MaskedDiffusionLM"], "auto_map": classes}
        how = {"qk_norm": shape.qk_norm, "shift_logits": shape.shift_logits, "mask_token_id": tokenizer.mask_id}
        return own | common | how
    if shape.qk_norm:
        return {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "use_sliding_window": False} | common
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "mlp_bias": False} | common


def describe_generation(loaded: LoadedModel, is_diffusion: bool) -> dict[str, object]:
    """Return the content of generation_config.json: texts begin and end with the end-of-text token."""
    end, mask = loaded.tokenizer.end_of_text_id, loaded.tokenizer.mask_id
    settings = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    settings["max_length"] = loaded.model.shape.context_length
    # Only a model that was trained with masks may come to write one; transformerlm-infer forbids it as well.
    if not is_diffusion and loaded.objective != "autoregressive" and mask is not None:
        settings["suppress_tokens"] = [mask]
    return settings


def write_tokenizer_files(tokenizer: Tokenizer, context_length: int, folder: Path) -> None:
    """Write what AutoTokenizer reads; like a prompt here, each text begins with the end-of-text token."""
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    if tokenizer.mask_id is not None:
        roles["mask_token"] = MASK
    write_tokenizer_json(tokenizer, folder / TOKENIZER_JSON, start_token=END_OF_TEXT)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    _write_json(folder / "tokenizer_config.json", settings | roles)
    _write_json(folder / "special_tokens_map.json", roles)


def cast_state(model: TransformerLM, dtype: str) -> dict[str, Tensor]:
    """Return the weights on the CPU in another type; raises ForeignModelError if files do not hold it."""
    if dtype not in DTYPES:
        raise ForeignModelError(f"dtype = {dtype!r}: what is written holds float32 or bfloat16; use one of these")
    return {name: weight.detach().cpu().to(dtype_from_name(dtype)) for name, weight in model.state_dict().items()}


def measure_difference(
    model: TransformerLM, config: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: str, is_causal: bool
) -> float:
    """Compute logits from what was read back and compare them with the model's; returns the largest difference.

    Both in float64, ours with weights of the type written: what is left is a difference of what is computed.
    Raises ForeignModelError if there is one.
    """
    ours = copy.deepcopy(model).cpu().eval()
    for parameter in ours.parameters():
        parameter.data = parameter.data.to(dtype_from_name(dtype)).double()
    length = min(_CHECKED_TOKENS, model.shape.context_length)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.shape.vocab_size, (_CHECKED_ROWS, length), generator=generator)
    theirs = plain_logits(config, weights, tokens, is_causal)
    with torch.no_grad():
        expected = ours.double()(tokens, is_causal=is_causal)
    difference = float((theirs - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ForeignModelError(
            f"the written logits differ from the model's by up to {difference:.2g}, which is more than rounding; "
            "nothing is left of it"
        )
    return difference


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
