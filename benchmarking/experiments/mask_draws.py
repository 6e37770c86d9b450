"""Experiment (c): the variance of the likelihood bound under each way to draw masks.

    python -m benchmarking.experiments.mask_draws
    python -m benchmarking.experiments.mask_draws --large

A span of n letters in the middle of a document is scored given the rest, with the same number of passes for every way
of drawing, again and again with other random numbers: the spread of the estimates is the estimator's error. Once with
a trained model per seed, and once with the oracle, whose bound is exact and whose spread is the estimator's alone.
"""

import math
import statistics

from torch import nn

from benchmarking.experiments.plots import BITS, Panel, draw_panels
from benchmarking.experiments.records import Options, Records, parse_options
from benchmarking.experiments.training import MASKED, load_arm, train_and_measure
from transformerlm.likelihood.monte_carlo import EvaluationDraw
from transformerlm.likelihood.score import Passage
from transformerlm.likelihood.scorer import DiffusionLikelihood, LikelihoodSettings
from transformerlm.synthetic import hidden_markov
from transformerlm.synthetic.oracle import OracleDenoiser

NAME = "mask_draws"
DRAWS: tuple[EvaluationDraw, ...] = ("iid", "stratified", "exact_count", "complementary")
SPANS = (1, 2, 4, 8, 16, 32, 63)
PASSES = 8
LARGE = ("training.max_steps=20000", "model.d_model=256", "model.num_layers=6", "model.num_heads=8")


def main() -> None:
    """Run what is missing, and draw the figure."""
    options, records = parse_options(__doc__), Records(NAME)
    if not options.is_plot_only:
        run(options, records)
    draw(records)


def run(options: Options, records: Records) -> None:
    """Measure a trained model and the oracle with every seed."""
    documents, repeats = (32, 64) if options.is_large else (4, 24)
    for seed in range(options.seeds):
        keys = {"model": "trained model", "seed": seed, "large": options.is_large}
        if not records.holds(**keys):
            loaded = train_and_measure(load_arm(NAME, MASKED, seed, LARGE if options.is_large else ()))
            ids = [loaded.tokenizer.encode(letter)[0] for letter in hidden_markov.SYMBOLS]
            start, mask_id = (loaded.tokenizer.end_of_text_id,), loaded.tokenizer.mask_id
            texts = [(*start, *(ids[symbol] for symbol in symbols)) for symbols in draw_documents(documents, seed)]
            records.add({**keys, **line} for line in measure(loaded.model, mask_id, texts, repeats))
        keys = {**keys, "model": "oracle"}
        if not records.holds(**keys):
            oracle = OracleDenoiser(hidden_markov.letters_source())
            texts = [tuple(symbols) for symbols in draw_documents(documents, seed)]
            records.add({**keys, **line} for line in measure(oracle, oracle.mask_id, texts, repeats))


def draw_documents(count: int, seed: int) -> list[list[int]]:
    """Return validation documents as symbols, other ones for every seed."""
    indices = range(seed * count, (seed + 1) * count)
    texts = [hidden_markov.document("validation", index) for index in indices]
    return [hidden_markov.read_symbols(text).tolist() for text in texts]


def measure(model: nn.Module, mask_id: int, texts: list[tuple[int, ...]], repeats: int) -> list[dict[str, float]]:
    """Return the estimator's standard deviation per scored token for every way of drawing and every span."""
    lines = []
    for mask_draw in DRAWS:
        likelihood = DiffusionLikelihood(model, mask_id, LikelihoodSettings(PASSES, 0, mask_draw, batch_size=64))
        for span in SPANS:
            variances = []
            for text in texts:
                first = (len(text) - span + 1) // 2
                passage = Passage.gaps(text, range(first, first + span))
                estimates = [score.nats for score in likelihood.score([passage] * repeats)]
                variances.append(statistics.variance(estimates))
            deviation = math.sqrt(statistics.mean(variances)) / span
            lines.append({"draw": mask_draw, "span": span, "deviation_nats": deviation})
    return lines


def draw(records: Records) -> None:
    """Draw the trained models beside the oracle, of the large runs if there are any."""
    is_large = records.holds(large=True)
    panels = []
    for model in ("trained model", "oracle"):
        curves = {draw: records.select(model=model, draw=draw, large=is_large) for draw in DRAWS}
        panels.append(Panel(model, curves, "span", "deviation_nats", BITS))
    labels = ("scored letters", f"deviation of {PASSES} passes [bits/letter]")
    draw_panels(NAME, panels, labels, is_log_y=False)


if __name__ == "__main__":
    main()
