"""A Transformer language model from scratch, autoregressive or diffusion.

from transformerlm import Predictor, Tokenizer, TransformerLM

The names are imported when first used: the tokenizer alone does not load torch. docs/python_api.md shows them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformerlm.checkpoint import LoadedModel, load_model, save_model
    from transformerlm.inference.plan import Policy
    from transformerlm.inference.predictor import GenerationSettings, Predictor
    from transformerlm.inference.sampling import SamplingSettings
    from transformerlm.interop.huggingface import export_huggingface
    from transformerlm.interop.huggingface_import import import_huggingface
    from transformerlm.models.shape import ModelShape
    from transformerlm.models.transformer import TransformerLM
    from transformerlm.tokenizer import Tokenizer

__all__ = [
    "GenerationSettings",
    "LoadedModel",
    "ModelShape",
    "Policy",
    "Predictor",
    "SamplingSettings",
    "Tokenizer",
    "TransformerLM",
    "export_huggingface",
    "import_huggingface",
    "load_model",
    "save_model",
]

_HOMES = {
    "GenerationSettings": "transformerlm.inference.predictor",
    "LoadedModel": "transformerlm.checkpoint",
    "ModelShape": "transformerlm.models.shape",
    "Policy": "transformerlm.inference.plan",
    "Predictor": "transformerlm.inference.predictor",
    "SamplingSettings": "transformerlm.inference.sampling",
    "Tokenizer": "transformerlm.tokenizer",
    "TransformerLM": "transformerlm.models.transformer",
    "export_huggingface": "transformerlm.interop.huggingface",
    "import_huggingface": "transformerlm.interop.huggingface_import",
    "load_model": "transformerlm.checkpoint",
    "save_model": "transformerlm.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    """List the public names, for completion in notebooks."""
    return sorted([*globals(), *__all__])
