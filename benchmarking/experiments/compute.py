"""Experiment (a): bits above the true entropy of the stories against training compute, by objective.

    python -m benchmarking.experiments.compute
    python -m benchmarking.experiments.compute --large

All arms share one configuration and differ in [objective] alone. Compute counts the matrix products of a training step:
block diffusion runs every row twice, noised and clean. (What `head = "gathered"` saves is not subtracted.)
"""

from benchmarking.experiments.measuring import KnownRows
from benchmarking.experiments.plots import BITS, Panel, draw_panels
from benchmarking.experiments.records import Options, Records, parse_options
from benchmarking.experiments.training import (
    AUTOREGRESSIVE,
    MASKED,
    Arm,
    block_arm,
    load_arm,
    log_spaced,
    train_and_measure,
)
from cli.build import build_objective
from config.roots import TrainConfig
from config.sections.data import STORIES
from transformerlm.checkpoint import LoadedModel

NAME = "compute"
ARMS = (AUTOREGRESSIVE, block_arm(1), block_arm(4), block_arm(16), MASKED)
LARGE = ("model.d_model=256", "model.num_layers=6", "model.num_heads=8", "training.max_steps=20000")


def main() -> None:
    """Run what is missing, and draw the figure."""
    options, records = parse_options(__doc__), Records(NAME)
    if not options.is_plot_only:
        run(options, records)
    draw(records)


def run(options: Options, records: Records) -> None:
    """Train every arm with every seed."""
    for seed in range(options.seeds):
        for arm in ARMS:
            keys = {"arm": arm.name, "seed": seed, "large": options.is_large}
            if not records.holds(**keys):
                records.add({**keys, **line} for line in run_one(arm, seed, options.is_large))


def run_one(arm: Arm, seed: int, is_large: bool) -> list[dict[str, float]]:
    """Train one model, and score it on the way."""
    config = load_arm(NAME, arm, seed, LARGE if is_large else ())
    lines: list[dict[str, float]] = []
    held_out: list[KnownRows] = []

    def measure(loaded: LoadedModel, step: int) -> None:
        if not held_out:
            held_out.append(KnownRows.of(STORIES, loaded.tokenizer, config.model.context_length))
        tokens = step * config.training.batch_size * config.model.context_length
        lines.append(
            {
                "step": step,
                "flops": tokens * flops_per_token(loaded, config),
                "excess_nats": held_out[0].excess_nats(loaded),
            }
        )

    train_and_measure(config, log_spaced(config.training.max_steps), measure)
    return lines


def flops_per_token(loaded: LoadedModel, config: TrainConfig) -> int:
    """Count the operations of a training step per clean token."""
    objective = build_objective(config.objective, loaded.tokenizer)
    return objective.training_flops(loaded.model, config.model.context_length)


def draw(records: Records) -> None:
    """Draw one curve per arm, of the large runs if there are any."""
    is_large = records.holds(large=True)
    curves = {arm.name: records.select(arm=arm.name, large=is_large) for arm in ARMS}
    draw_panels(
        NAME,
        [Panel("stories, one model, five objectives", curves, "flops", "excess_nats", BITS)],
        ("training compute [FLOP]", "bits per token above the entropy"),
    )


if __name__ == "__main__":
    main()
