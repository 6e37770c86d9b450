"""transformerlm-train: train a language model from a configuration file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.command import Command, report, run_command

if TYPE_CHECKING:
    from config.roots import TrainConfig

COMMAND = Command(
    name="transformerlm-train",
    summary="Train a Transformer language model, autoregressive or diffusion, as a TOML file describes it.",
    config_name="TrainConfig",
    override="training.max_steps=100",
    example="""\
examples:
  transformerlm-train --config config/resources/train.toml
      a small model on the embedded corpus, a few minutes on a CPU
  transformerlm-train --config config/resources/train_diffusion.toml --set training.max_steps=7000
      the same as a masked-diffusion model, trained longer
  transformerlm-train --config config/resources/train.toml --set checkpointing.resume_from=latest
      continue the newest run
  torchrun --nproc-per-node 8 -m cli.train --config my.toml
      eight processes; without torchrun: --set ddp.nproc_per_node=8

  transformerlm-train --config config/resources/train.toml --lr-range-test lr.html
      which learning rate?  --find-batch-size answers: which micro-batch fits into memory?

Everything goes into runs/<name>/: config.toml, tokenizer/, metrics.jsonl, report.html, checkpoints/, summary.json.
Ctrl-C finishes the step, saves, and says how to resume; a second Ctrl-C aborts. So do SIGTERM and SIGUSR1, with exit
code 75: saved, resume me. With --set checkpointing.auto_resume=true the same command line goes on.
""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, train, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be done instead of training."""
    trial = parser.add_mutually_exclusive_group()
    trial.add_argument(
        "--find-batch-size",
        action="store_true",
        help="find the largest micro-batch that fits into memory and the accumulation that keeps the global batch",
    )
    trial.add_argument(
        "--lr-range-test",
        metavar="PAGE",
        nargs="?",
        const="lr_range_test.html",
        help="raise the learning rate step by step, and plot the loss against it in PAGE (%(const)s)",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="GB",
        type=positive_number,
        help="for --find-batch-size: memory each process may take; what is free now, by default",
    )


def positive_number(text: str) -> float:
    """Read a number above zero; raises ValueError, which argparse turns into a message."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def train(config: "TrainConfig", options: argparse.Namespace) -> int:
    """Start the training processes and wait for them; returns the exit code."""
    import torch

    from cli.finders import plot_learning_rates, print_batch_size
    from cli.training import run_training
    from trainkit.distributed.launch import LaunchSettings, launch
    from trainkit.errors import CheckpointSaveError, NonFiniteLoss, RunWriteError, WorkerError

    processes = config.ddp.nproc_per_node
    if processes == "auto":
        processes = max(1, torch.cuda.device_count()) if config.training.device != "cpu" else 1
    settings = LaunchSettings(nproc_per_node=processes, backend=config.ddp.backend, device=config.training.device)
    try:
        if options.find_batch_size:
            return print_batch_size(config, settings, options.memory_limit)
        if options.lr_range_test:
            return launch(plot_learning_rates, config, Path(options.lr_range_test), settings=settings)
        return launch(run_training, config, settings=settings)
    except (NonFiniteLoss, CheckpointSaveError, RunWriteError, WorkerError) as error:
        return report(str(error).splitlines(), exit_code=1)


if __name__ == "__main__":
    sys.exit(main())
