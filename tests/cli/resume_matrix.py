"""Train 40 steps in one piece; then 17 and more, kill -9, resume. A script: the ranks it forks need import nothing.

python resume_matrix.py FOLDER OBJECTIVE:RANKS:STRATEGY ...    leaves FOLDER/<case>/whole and FOLDER/<case>/cut
"""

import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch

import cli.training
from config.io import load_config
from config.roots import TrainConfig
from trainkit.callbacks import Callback
from trainkit.distributed.parallel import process_group, world_from_environment

ROOT = Path(__file__).parent.parent.parent
STEPS, KILLED_AFTER = 40, 17
SMALL = [
    "model.d_model=32",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.context_length=64",
    f"training.max_steps={STEPS}",
    "training.batch_size=2",
    "training.grad_accum_steps=2",
    "training.eval_every=10",
    "training.eval_batches=2",
    "optimizer.warmup_steps=5",
    "logging.log_every=1",
    "logging.backends=[]",
    f"checkpointing.every={KILLED_AFTER}",
    "checkpointing.keep_last=0",
    "checkpointing.keep_best=0",
    "sampling.every=0",
    "sampling.prompts=[]",
    "ddp.backend=gloo",
    "training.device=cpu",
]


class KillOnceSaved(Callback):
    """Die as by kill -9 when the checkpoint of a step has become durable, steps after it were taken."""

    def on_checkpoint_saved(self, step: int, path: Path) -> None:
        if step == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


def train(case: str, folder: Path, is_killed: bool) -> None:
    objective, _, strategy = case.split(":")
    overrides = [*SMALL, f"logging.runs_path={folder.parent}", f"logging.run_name={folder.name}"]
    overrides += [f"ddp.strategy={strategy}", "checkpointing.auto_resume=true"]
    name = "train.toml" if objective == "autoregressive" else "train_diffusion.toml"
    config = load_config(ROOT / "config" / "resources" / name, TrainConfig, overrides)
    world = world_from_environment("cpu")
    cli.training.print_summary = lambda *_: None  # measures and samples for longer than these runs train
    original = cli.training.make_callbacks
    if is_killed:
        cli.training.make_callbacks = lambda *arguments: [*original(*arguments), KillOnceSaved()]
    with process_group(world, "gloo"):
        torch.set_num_threads(1)
        assert cli.training.run_training(world, config) == 0


def fork_ranks(case: str, folder: Path, is_killed: bool) -> list[int]:
    """Run all ranks of a case and return their exit codes."""
    ranks = int(case.split(":")[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            try:
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
                os.environ.update({name: str(value) for name, value in places.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                train(case, folder, is_killed)
            except BaseException:
                if not is_killed:
                    traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    os.chdir(ROOT)
    for given in sys.argv[2:]:
        place = Path(sys.argv[1]) / given.replace(":", "_")
        assert fork_ranks(given, place / "whole", is_killed=False) == [0] * int(given.split(":")[1])
        codes = fork_ranks(given, place / "cut", is_killed=True)
        assert codes[0] == -signal.SIGKILL, codes
        assert fork_ranks(given, place / "cut", is_killed=False) == [0] * len(codes)
