"""Configuration of a masked-diffusion language model made with transformerlm."""

from transformers import PretrainedConfig


class MaskedDiffusionConfig(PretrainedConfig):
    """Shape of the model; the names are those of Llama's configuration."""

    model_type = "transformerlm_masked_diffusion"

    def __init__(
        self,
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=160,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        qk_norm=False,
        mask_token_id=None,
        **others,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.qk_norm = qk_norm
        self.mask_token_id = mask_token_id
        super().__init__(**others)
