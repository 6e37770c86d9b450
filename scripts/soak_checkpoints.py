"""Kill a training run 200 times with kill -9, at random moments, and show that no step is lost and no memory leaks.

    uv run python scripts/soak_checkpoints.py --kills 200 --steps 7200 --output soak.json

A small regression is trained with trainkit alone, saving every few steps in the background: as many steps as a run of
two hours takes at one a second, in minutes. Each session is forked from this process, which has imported torch, so a
resume costs a fraction of a second. After each kill the parent looks at what lies on the disk, and asserts that

- the newest checkpoint is whole, and no older than the last one that the session was told is durable,
- the next session continues exactly there,
- every loss, of every step of every session, is to the last bit that of the same run without saves and kills.

Memory is read from /proc after every 200th step of the last session, which is never killed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which building an optimizer imports: once here, not in each of the sessions
from torch import nn

from trainkit.callbacks import Callback
from trainkit.checkpointing.finding import find_checkpoint, verify_checkpoint
from trainkit.checkpointing.manager import CheckpointManager, checkpoint_step
from trainkit.checkpointing.retention import Retention
from trainkit.distributed.parallel import World
from trainkit.metrics import StepRecord
from trainkit.protocols import Batch, StepContext, StepOutput
from trainkit.settings import Task, TrainerSettings
from trainkit.trainer import Trainer
from trainkit.training.schedule import Schedule

SAVE_EVERY, WIDTH, ROWS = 4, 16, 8


class Waves:
    """Points on a fixed random function; the state is the number of batches drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __next__(self) -> Batch:
        self.drawn += 1
        x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(self.drawn))
        return {"x": x, "y": torch.sin(3 * x).sum(1, keepdim=True)}

    def origin(self) -> str:
        """Name the last batch."""
        return f"batch {self.drawn}"

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position."""
        self.drawn = state["drawn"]


def squared_error(model: nn.Module, batch: Batch, context: StepContext) -> StepOutput:
    """Sum squared errors, with noise from the step's generator."""
    noise = 0.01 * torch.randn(context.total_rows, 1, generator=context.rng)
    errors = model(batch["x"]) - batch["y"] - noise
    return StepOutput(errors.square().sum(), torch.tensor(float(len(errors))), {})


class Report(Callback):
    """Write to a pipe what the parent is to know, a line each, so that a kill loses nothing that was said."""

    def __init__(self, pipe: int, memory_every: int = 200) -> None:
        self.pipe = pipe
        self.memory_every = memory_every

    def on_train_start(self, step: int, max_steps: int) -> None:
        """Tell where the session begins."""
        self._tell("start", step)

    def on_step_end(self, record: StepRecord) -> None:
        """Tell the loss, and now and then the memory."""
        self._tell("loss", record.step, record.loss.hex())
        if record.step % self.memory_every == 0:
            self._tell("memory", record.step, resident_kilobytes())

    def on_checkpoint_saved(self, step: int, path: Path) -> None:
        """Tell what is durable."""
        self._tell("saved", step)

    def _tell(self, *words: object) -> None:
        os.write(self.pipe, (json.dumps(words) + "\n").encode())


@dataclass
class Session:
    """What one child told before it ended."""

    start: int = -1
    losses: dict[int, str] = field(default_factory=dict)
    saves: list[int] = field(default_factory=list)
    memory_kilobytes: dict[int, int] = field(default_factory=dict)
    exit_code: int = 0
    lasted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Death:
    """When a session is killed: so many steps after it resumed, below 0 after it was forked, and a little later."""

    after_steps: int
    delay_s: float


def resident_kilobytes() -> int:
    """Return the memory this process occupies."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def train(steps: int, folder: Path | None, pipe: int) -> None:
    """Train, resuming what is in `folder`; without it nothing is saved."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    settings = TrainerSettings(
        Schedule("cosine", max_learning_rate=0.01, max_steps=steps), precision="float32", save_every=SAVE_EVERY
    )
    checkpoints = CheckpointManager(folder, Retention(keep_last=3)) if folder else None
    trainer = Trainer(
        Task(model, squared_error, Waves()), settings, World(), callbacks=[Report(pipe)], checkpoints=checkpoints
    )
    if folder is not None and folder.exists() and checkpoints.latest() is not None:
        trainer.resume(find_checkpoint(folder))
    trainer.fit()


def run_session(steps: int, folder: Path | None, death: Death | None) -> Session:
    """Train in a forked process, and kill it at a given moment, unless that is None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            train(steps, folder, writer)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    session, timer, began_s = Session(), None, time.monotonic()
    if death is not None and death.after_steps < 0:
        timer = kill_soon(child, death.delay_s)
    for words in read_lines(reader):
        if words[0] == "start":
            session.start = words[1]
        elif words[0] == "loss":
            session.losses[words[1]] = words[2]
        elif words[0] == "saved":
            session.saves.append(words[1])
        elif words[0] == "memory":
            session.memory_kilobytes[words[1]] = words[2]
        if death is not None and timer is None and len(session.losses) >= death.after_steps:
            timer = kill_soon(child, death.delay_s)
    if timer is not None:
        timer.cancel()
        timer.join()
    session.exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    session.lasted_s = time.monotonic() - began_s
    return session


def kill_soon(child: int, delay_s: float) -> threading.Timer:
    """Kill a process after a while."""
    timer = threading.Timer(delay_s, os.kill, (child, signal.SIGKILL))
    timer.start()
    return timer


def read_lines(reader: int) -> Iterator[list]:
    """Yield what a child wrote; a last line that its death cut short is dropped."""
    with os.fdopen(reader) as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def durable_step(folder: Path) -> int:
    """Return the step of the newest checkpoint after checking it, 0 if there is none yet."""
    if not folder.exists() or CheckpointManager(folder).latest() is None:
        return 0
    checkpoint = find_checkpoint(folder)
    verify_checkpoint(checkpoint)
    return checkpoint_step(checkpoint)


def soak(kills: int, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run the whole experiment; raises AssertionError at the first step that is lost or differs."""
    random_moment = random.Random(seed)
    began_s = time.monotonic()
    expected = run_session(steps, None, None)
    assert expected.exit_code == 0
    checkpoints, sessions, repeated, killed = folder / "checkpoints", [], [], 0
    while True:
        durable = durable_step(checkpoints)
        # Spread over half of the run, whatever the machine's speed; the delay is that of about two saves.
        death = Death(random_moment.randint(-steps // kills // 9, steps // kills), random_moment.uniform(0, 0.1))
        session = run_session(steps, checkpoints, death if killed < kills else None)
        if session.start < 0:
            assert session.exit_code == -signal.SIGKILL, "a session ended before it began"
        else:
            assert session.start == durable, f"resumed at {session.start}, durable was {durable}"
        for step, loss in session.losses.items():
            assert loss == expected.losses[step], f"step {step}: {loss} is not {expected.losses[step]}"
        assert durable_step(checkpoints) >= max(session.saves, default=0), "a durable checkpoint disappeared"
        sessions.append(session)
        if session.exit_code == 0:
            break
        assert session.exit_code == -signal.SIGKILL, session.exit_code
        killed += 1
        repeated.append(max(session.losses, default=durable) - durable_step(checkpoints))
        if killed % 20 == 0:
            print(f"{killed} kills, at step {durable_step(checkpoints)} of {steps}", file=sys.stderr, flush=True)
    covered = set().union(*(session.losses for session in sessions))
    assert covered == set(range(1, steps + 1)), "steps are missing"
    memory = sessions[-1].memory_kilobytes
    assert not [path for path in checkpoints.iterdir() if path.name.startswith(".")], "leftovers"
    return {
        "steps": steps,
        "save_every": SAVE_EVERY,
        "kills": killed,
        "sessions": len(sessions),
        "saves": sum(len(session.saves) for session in sessions),
        "losses_compared": sum(len(session.losses) for session in sessions),
        "steps_repeated_after_a_kill_median": statistics.median(repeated) if repeated else 0,
        "steps_repeated_after_a_kill_max": max(repeated, default=0),
        "session_s_median": round(statistics.median(each.lasted_s for each in sessions), 3),
        "last_session_steps": len(sessions[-1].losses),
        "memory_mb_of_last_session": {step: round(value / 1024, 1) for step, value in memory.items()},
        "wall_s": round(time.monotonic() - began_s, 1),
    }


def main() -> int:
    """Run the soak and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=7_200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, help="where to write the figures as well")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    folder = Path(tempfile.mkdtemp(prefix="soak_"))
    try:
        figures = soak(options.kills, options.steps, options.seed, folder)
    finally:
        shutil.rmtree(folder)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
