"""[ddp]: training on several processes at once."""

from typing import Literal

from pydantic import PositiveInt

from config.section import Section


class DdpSection(Section):
    """Distributed data parallelism: each process has the whole model and a part of the batch."""

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """How processes talk; `auto` is nccl between GPUs, gloo between CPUs."""
    nproc_per_node: PositiveInt | Literal["auto"] = 1
    """Processes to start on this machine; `auto`: one per GPU, or one without. Under torchrun, torchrun decides."""
