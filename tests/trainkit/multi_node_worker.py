"""What torchrun starts on each host of the multi-node test: train on, from wherever the last checkpoint is."""

import sys
import time
from pathlib import Path

import torch
from trainkit_workers import ToySource, make_settings, make_trainer, weights_of

from trainkit.checkpointing.manager import CheckpointManager
from trainkit.distributed.launch import LaunchSettings, launch
from trainkit.distributed.parallel import World
from trainkit.protocols import Batch

SAVE_EVERY = 5


class PacedSource(ToySource):
    """Leave time for a host to be killed in the middle."""

    pause_s = 0.0

    def __next__(self) -> Batch:
        time.sleep(self.pause_s)
        return super().__next__()


def train_on(world: World, folder: str, max_steps: int, pause_s: float) -> None:
    """Train to `max_steps`, leaving a line about each start, and the weights at the end."""
    torch.set_num_threads(1)
    manager = CheckpointManager(Path(folder) / "checkpoints")
    source = PacedSource(world, 1)
    source.pause_s = pause_s
    settings = make_settings(max_steps, save_every=SAVE_EVERY, log_every=1000)
    trainer = make_trainer(world, settings, dropout=0.3, source=source, checkpoints=manager)
    newest = manager.latest()
    if newest is not None:
        trainer.resume(newest)
    with open(Path(folder) / f"starts_{world.rank}", "a") as file:
        file.write(f"{trainer.state.step} of {world.size} ranks\n")
    trainer.fit()
    torch.save(weights_of(trainer), Path(folder) / f"weights_{world.rank}.pt")


if __name__ == "__main__":
    folder, max_steps, pause_s = sys.argv[1:]
    launch(train_on, folder, int(max_steps), float(pause_s), settings=LaunchSettings(device="cpu"))
