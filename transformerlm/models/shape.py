"""What a model looks like, as plain numbers: known without loading torch or any weights."""

from dataclasses import asdict, dataclass
from typing import Literal

AttentionBackend = Literal["mha", "sdpa"]
SdpBackendName = Literal["auto", "flash", "mem_efficient", "math", "cudnn"]

VOCAB_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Everything that fixes a model's parameters and how it computes."""

    vocab_size: int
    context_length: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    d_ff: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    qk_norm: bool = False
    tie_embeddings: bool = False
    attention_backend: AttentionBackend = "sdpa"
    sdp_backend: SdpBackendName = "auto"
    shift_logits: bool = False
    """Denoising passes, too, predict each token at the position before it, as autoregressive weights learned to."""
    block_length: int | None = None
    """Trained by block diffusion: denoised in blocks of so many tokens, none of which sees a later block."""

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads} must divide d_model = {self.d_model}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads = {self.num_kv_heads} must divide num_heads = {self.num_heads}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def padded_vocab_size(self) -> int:
        """vocab_size rounded up, so that the largest matrix product has friendly edges."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values, for a checkpoint's JSON."""
        return asdict(self)
