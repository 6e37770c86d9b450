"""A Transformer language model from scratch, autoregressive or diffusion.

from transformerlm import Predictor, Tokenizer, TransformerLM

The names are imported when first used: the tokenizer alone does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformerlm.inference.predictor import GenerationSettings, Predictor
    from transformerlm.models.shape import ModelShape
    from transformerlm.models.transformer import TransformerLM
    from transformerlm.tokenizer import Tokenizer

__all__ = ["GenerationSettings", "ModelShape", "Predictor", "Tokenizer", "TransformerLM"]

_HOMES = {
    "GenerationSettings": "transformerlm.inference.predictor",
    "ModelShape": "transformerlm.models.shape",
    "Predictor": "transformerlm.inference.predictor",
    "Tokenizer": "transformerlm.tokenizer",
    "TransformerLM": "transformerlm.models.transformer",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(import_module(_HOMES[name]))[name]
