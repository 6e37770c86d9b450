"""[ddp]: training on several processes at once."""

from typing import Literal

from pydantic import PositiveInt

from config.section import Section


class DdpSection(Section):
    """Data parallelism: each process has a part of the batch, and all or a slice of the model."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every process has the whole model. `fsdp`: a slice of the weights, gradients and optimizer state; layers
    are put together when they are needed. For models that are too large for one GPU. With one process it makes no
    difference."""
    activation_checkpointing: bool = False
    """Keep only what goes into each layer and compute the rest again in the backward pass: memory for a third more
    time. For any strategy, and for one process."""
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """How processes talk; `auto` is nccl between GPUs, gloo between CPUs."""
    nproc_per_node: PositiveInt | Literal["auto"] = 1
    """Processes to start on this machine; `auto`: one per GPU, or one without. Under torchrun, torchrun decides."""
