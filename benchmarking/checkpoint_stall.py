"""How long saving holds up training: a model of 100 million parameters, saved in the background and in line.

    uv run python -m benchmarking.checkpoint_stall --steps 8 --save-every 2

Prints, for each way of saving, the time of a step and how long the loop stood still at a save. What the thread that
writes takes from the cores shows in the steps that follow a save, which are listed beside the others.
The theory: copying 12 bytes per parameter (weights and AdamW's two moments) to memory that was used before, at about
10 GB/s, takes 0.12 s per 100 million parameters; hashing and writing take seconds, but nobody waits for them.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarking.machine import inspect_machine
from trainkit.callbacks import Callback
from trainkit.checkpointing.manager import CheckpointManager
from trainkit.checkpointing.retention import Retention
from trainkit.metrics import StepRecord
from trainkit.protocols import Batch, StepContext, StepOutput
from trainkit.settings import Task, TrainerSettings
from trainkit.trainer import Trainer
from trainkit.training.schedule import Schedule
from transformerlm.models.shape import ModelShape
from transformerlm.models.transformer import TransformerLM

SHAPE = ModelShape(
    vocab_size=16384, context_length=512, d_model=768, num_layers=12, num_heads=12, num_kv_heads=12, d_ff=2048
)


class RandomTokens:
    """Rows of random tokens: speed does not depend on what they say."""

    def __init__(self, rows: int) -> None:
        self.rows, self.drawn = rows, 0

    def __next__(self) -> Batch:
        self.drawn += 1
        generator = torch.Generator().manual_seed(self.drawn)
        return {"ids": torch.randint(SHAPE.vocab_size, (self.rows, SHAPE.context_length + 1), generator=generator)}

    def origin(self) -> str:
        """Name the last batch."""
        return f"batch {self.drawn}"

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position."""
        self.drawn = state["drawn"]


def next_token(model: nn.Module, batch: Batch, _context: StepContext) -> StepOutput:
    """Sum the cross-entropy of every next token."""
    logits: Tensor = model(batch["ids"][:, :-1], is_causal=True)
    loss = cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="sum")
    return StepOutput(loss, torch.tensor(float(batch["ids"][:, 1:].numel())), {})


class Stopwatch(Callback):
    """Keep how long each step took, and each stall."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.step_ms: list[float] = []
        self.stall_ms: dict[int, float] = {}
        self._stall_seen = 0.0

    def on_step_end(self, record: StepRecord) -> None:
        """Note the step, and the stall of the save that came before it."""
        self._note_stall(record.step - 1)
        self.step_ms.append(record.times.step_ms)

    def on_train_end(self, step: int) -> None:
        """Note the stall of the last save."""
        self._note_stall(step)

    def _note_stall(self, step: int) -> None:
        if self.trainer.saver.stall_ms != self._stall_seen:
            self._stall_seen = self.stall_ms[step] = self.trainer.saver.stall_ms


def measure(in_background: bool, steps: int, save_every: int, rows: int) -> dict[str, Any]:
    """Train a fresh model and return the figures, in milliseconds; the first step, which warms up, is left out."""
    torch.manual_seed(0)
    model = TransformerLM(SHAPE)
    folder = Path(tempfile.mkdtemp(prefix="stall_"))
    settings = TrainerSettings(
        Schedule("constant", 1e-4, max_steps=steps),
        precision="float32",
        save_every=save_every,
        save_in_background=in_background,
    )
    stopwatch = Stopwatch()
    try:
        manager = CheckpointManager(folder, Retention(keep_last=1))
        task = Task(model, next_token, RandomTokens(rows))
        trainer = Trainer(task, settings, callbacks=[stopwatch], checkpoints=manager)
        stopwatch.trainer = trainer
        trainer.fit()
        size = sum(path.stat().st_size for path in manager.latest().rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder)
    after_save = [ms for step, ms in enumerate(stopwatch.step_ms, start=1) if (step - 1) % save_every == 0 and step > 1]
    others = [ms for step, ms in enumerate(stopwatch.step_ms, start=1) if (step - 1) % save_every and step > 1]
    stalls = list(stopwatch.stall_ms.values())
    return {
        "saving": "in the background" if in_background else "in line",
        "parameters": model.parameter_count(),
        "checkpoint_mb": round(size / 1e6),
        "step_ms": round(statistics.median(others)),
        "step_right_after_a_save_ms": round(statistics.median(after_save)),
        "first_stall_ms": round(stalls[0], 1),
        "stall_ms": round(statistics.median(stalls[1:]), 1),
        "stall_share_of_a_step": round(statistics.median(stalls[1:]) / statistics.median(others), 4),
    }


def main() -> int:
    """Measure both ways of saving and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save-every", type=int, default=2, help="at least 2")
    parser.add_argument("--rows", type=int, default=1, help=f"of {SHAPE.context_length} tokens, in a step")
    options = parser.parse_args()
    machine = inspect_machine(torch.device("cpu"))
    print(f"{machine.name}, {torch.get_num_threads()} threads, {machine.describe_peaks()}")
    for in_background in (True, False):
        print(json.dumps(measure(in_background, options.steps, options.save_every, options.rows)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
