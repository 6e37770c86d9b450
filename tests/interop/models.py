"""Models to carry over and back: weights large enough that a mistake shows."""

import torch

from transformerlm.checkpoint import LoadedModel
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM
from transformerlm.tokenizer import Tokenizer, Vocabulary, train_bpe

SHAPES = {
    "llama": {},
    "qwen3": {"qk_norm": True, "tie_embeddings": True},
    "grouped": {"num_kv_heads": 1, "rope_theta": 500.0},
    "shifted": {"shift_logits": True, "qk_norm": True},
    "grouped qwen3": {"num_kv_heads": 2, "qk_norm": True, "norm_eps": 1e-3},
}


def learn_tokenizer() -> Tokenizer:
    """Learn a vocabulary of 290 tokens, no multiple of 64, so that models pad it."""
    specials = ["<|endoftext|>", "<|mask|>"]
    text = "the cat and the hat and the bat sat on the mat with a rat; they said that this is their thing, not ours"
    merges = train_bpe([text], 288, []).vocabulary.merges
    return Tokenizer(Vocabulary.from_merges(merges, specials), "python")


def make_loaded(kind: str = "llama", objective: str = "autoregressive", weight_scale: float = 8.0) -> LoadedModel:
    """Build a model of random weights, norms included, with its tokenizer."""
    tokenizer = learn_tokenizer()
    shape = ModelShape(
        **{
            "vocab_size": tokenizer.vocab_size,
            "context_length": 48,
            "d_model": 64,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 4,
            "d_ff": 96,
            **SHAPES[kind],
        }
    )
    torch.manual_seed(1)
    model = TransformerLM(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(weight_scale)
            else:
                parameter.uniform_(0.5, 1.5)
        model.head.weight[shape.vocab_size :] = 0  # as after import: what no token reaches
        model.embedding.weight[shape.vocab_size :] = 0
    return LoadedModel(model, tokenizer, objective, None)
