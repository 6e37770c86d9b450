"""[inference]: what transformerlm-infer generates."""

from config.sections.generation import GenerationSettings
from config.sections.training import Device, Precision


class InferenceSection(GenerationSettings):
    """[inference]: what to generate, and on what hardware."""

    prompt: str = ""
    """Beginning to continue; empty starts from nothing."""
    device: Device = "auto"
    """Where to run; `auto` takes CUDA if there is a GPU."""
    precision: Precision = "auto"
    """Type of the matrix multiplications; `auto` is bfloat16 on a GPU that has it, else float32."""
