"""Configuration of a masked-diffusion language model made with transformerlm."""

from transformers import PretrainedConfig

DEFAULTS = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 160,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "qk_norm": False,
    "shift_logits": False,
    "mask_token_id": None,
}


class MaskedDiffusionConfig(PretrainedConfig):
    """Shape of the model; the names are those of Llama's configuration."""

    model_type = "transformerlm_masked_diffusion"

    def __init__(self, **entries):
        for name, default in DEFAULTS.items():
            setattr(self, name, entries.pop(name, default))
        super().__init__(**entries)
