"""Who takes turns in the training benchmark: our whole loop, and others' models in the plainest loop there is.

Everyone trains the same shape on the same random tokens with the same fused AdamW and the same clipping.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarking.plain_transformer import PlainTransformer
from benchmarking.step_times import MarkSteps, StepTimer, StepTimes
from benchmarking.training_workload import ADAMW, CLIP_NORM, LEARNING_RATE, RandomRows, Workload
from benchmarking.transformers_peer import make_config
from profiling.layers import name_layers
from profiling.nvtx import nvtx_range, recorded_by
from trainkit.data.prefetch import Prefetched
from trainkit.distributed.parallel import World
from trainkit.logging.jsonl import JsonlLogger
from trainkit.settings import Task, TrainerSettings
from trainkit.trainer import Trainer
from trainkit.training.precision import PrecisionName
from trainkit.training.schedule import Schedule
from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.base import LanguageObjective

OURS = "transformerlm"
PREFETCHED = 2
LOG_EVERY = 10
NEVER = 10**9


class Contender(Protocol):
    """Something that trains."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def run(self, steps: int) -> StepTimes:
        """Train for some more steps and say how long they took."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


class OurLoop:
    """The Trainer as transformerlm-train uses it: prefetching, guard, clipping, metrics.jsonl."""

    name = OURS

    def __init__(self, workload: Workload, objective: LanguageObjective, metrics: Path, is_compiled: bool):
        """Write the records of steps to `metrics`, as every run does."""
        torch.manual_seed(workload.seed)
        model = TransformerLM(workload.shape)
        source = RandomRows(workload, workload.shape.context_length + objective.lookahead)
        self._source = Prefetched(source, PREFETCHED, pin_memory=workload.device.type == "cuda")
        self._timer = StepTimer(workload.device)
        precision: PrecisionName = "float32" if workload.dtype == torch.float32 else "bfloat16"
        settings = TrainerSettings(
            schedule=Schedule("constant", LEARNING_RATE, NEVER),
            optimizer=ADAMW,
            grad_clip_norm=CLIP_NORM,
            precision=precision,
            compile=is_compiled,
            seed=workload.seed,
            flops_per_weight=objective.training_flops(model, workload.shape.context_length),
            log_every=LOG_EVERY,
        )
        callbacks = [MarkSteps(self._timer), JsonlLogger(metrics, "tokens")]
        self._trainer = Trainer(
            Task(model, objective, self._source, tuple(model.blocks), model.role_of),
            settings,
            World(device=workload.device),
            callbacks,
        )
        name_layers(model.blocks)
        self.model, self.optimizer = self._trainer.model, self._trainer.state.optimizer

    def run(self, steps: int) -> StepTimes:
        """Let the loop run for some more steps."""
        with recorded_by(self._timer):
            self.train(steps)
        return self._timer.take()

    def train(self, steps: int) -> None:
        """Do the same, and let named ranges go where they went before."""
        self._trainer.max_steps = self._trainer.state.step + steps
        if self._trainer.fit().stop_signal is not None:
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        state = self._trainer.state
        parts = {"model": state.model, "optimizer": state.optimizer, "guard": state.guard, "source": self._source}
        return {"step": state.step, **{name: part.state_dict() for name, part in parts.items()}}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        state = self._trainer.state
        state.step = saved["step"]
        parts = {"model": state.model, "optimizer": state.optimizer, "guard": state.guard, "source": self._source}
        for name, part in parts.items():
            part.load_state_dict(saved[name])

    def close(self) -> None:
        """Stop reading ahead."""
        self._source.close()


class PlainLoop:
    """Fetch, forward, backward, clip, update, and nothing else."""

    def __init__(self, name: str, workload: Workload, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]):
        """loss: (tokens, targets), [batch, seq] int64 each -> [] mean loss."""
        self.name, self.model = name, model
        self.optimizer = workload.build_adamw(model)
        self._workload, self._loss = workload, loss
        self._batches: Iterator[dict[str, Tensor]] = RandomRows(workload, workload.shape.context_length + 1)
        self._timer = StepTimer(workload.device)

    def run(self, steps: int) -> StepTimes:
        """Train for some more steps."""
        with recorded_by(self._timer):
            for _ in range(steps):
                self._timer.mark_step()
                self._step()
            self._timer.mark_step()
        return self._timer.take()

    def _step(self) -> None:
        with nvtx_range("fetch"):
            tokens = next(self._batches)["tokens"].to(self._workload.device)
        with nvtx_range("forward"), self._workload.autocast():
            loss = self._loss(tokens[:, :-1], tokens[:, 1:].contiguous())
        with nvtx_range("backward"):
            loss.backward()
        with nvtx_range("clip"):
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        with nvtx_range("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """Hold nothing."""


def build_plain(workload: Workload) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return the floor: plain PyTorch."""
    model = PlainTransformer(workload.shape).to(workload.device)
    return model, model


def build_transformers(workload: Workload) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return transformers' Llama with the loss it computes itself.

    Raises ImportError without transformers.
    """
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(make_config(workload.shape)).to(workload.device).train()

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss

    return model, loss


def build_litgpt(workload: Workload) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return litgpt's GPT in the same shape.

    Raises ImportError without litgpt.
    """
    from litgpt.config import Config
    from litgpt.model import GPT

    shape = workload.shape
    config = Config(
        block_size=shape.context_length,
        padded_vocab_size=shape.padded_vocab_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_query_groups=shape.num_kv_heads,
        n_embd=shape.d_model,
        intermediate_size=shape.d_ff,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape.norm_eps,
        mlp_class_name="LLaMAMLP",
    )
    model = GPT(config)
    if shape.tie_embeddings:
        model.lm_head.weight = model.transformer.wte.weight
    model.to(workload.device)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())

    return model, loss


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's model."""

    name: str
    build: Callable[[Workload], tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]]
    is_required: bool = False
    """Part of the benchmark itself."""


PEERS = (
    Peer("plain PyTorch", build_plain, is_required=True),
    Peer("transformers", build_transformers),
    Peer("litgpt", build_litgpt),
)


def build_peers(workload: Workload, is_compiled: bool) -> tuple[list[PlainLoop], list[str]]:
    """Return the peers that are installed, and why the others are missing."""
    loops, missing = [], []
    for peer in PEERS:
        torch.manual_seed(workload.seed)
        try:
            model, loss = peer.build(workload)
        except ImportError as error:
            missing.append(f"{peer.name}: {error}")
            continue
        compute: Any = torch.compile(loss) if is_compiled else loss
        loops.append(PlainLoop(peer.name, workload, model, compute))
    return loops, missing
