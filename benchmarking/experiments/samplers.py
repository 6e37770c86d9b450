"""Experiment (d): the quality of what samplers write against the work that it takes.

    python -m benchmarking.experiments.samplers
    python -m benchmarking.experiments.samplers --large

Models of the hidden Markov language write whole documents, 63 letters. Quality is what the source says of them: how far
a document is possible (a share of its letters, up to the first that no document has there), and the nats per letter
that this beginning costs, which should be neither more nor less than the entropy: less is repetition. Work is counted
in positions that go through the network per letter, which no other work on the machine disturbs; passes are kept in the
results, too.
"""

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import replace

from benchmarking.experiments.plots import Panel, draw_panels
from benchmarking.experiments.records import Options, Records, parse_options
from benchmarking.experiments.training import AUTOREGRESSIVE, MASKED, load_arm, train_and_measure
from transformerlm.checkpoint import LoadedModel
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.plan import Policy
from transformerlm.inference.predictor import GenerationSettings, Predictor
from transformerlm.synthetic import hidden_markov

NAME = "samplers"
LENGTH = 1 + hidden_markov.DOCUMENT_LENGTH
STEPS = (4, 8, 16, 32, 63)
LARGE = ("training.max_steps=20000", "model.d_model=256", "model.num_layers=6", "model.num_heads=8")
WORK = "forwards_per_token"
AUTOREGRESSION, EXACT = "autoregression, cached", "first hitting"


def main() -> None:
    """Run what is missing, and draw the figure."""
    options, records = parse_options(__doc__), Records(NAME)
    if not options.is_plot_only:
        run(options, records)
    draw(records)


def run(options: Options, records: Records) -> None:
    """Train a model of each kind with every seed, and run every sampler on it."""
    num_texts = 256 if options.is_large else 64
    for seed in range(options.seeds):
        keys = {"seed": seed, "large": options.is_large}
        if records.holds(**keys):
            continue
        lines = []
        for arm in (AUTOREGRESSIVE, MASKED):
            loaded = train_and_measure(load_arm(NAME, arm, seed, LARGE if options.is_large else ()))
            for name, settings in samplers(arm is AUTOREGRESSIVE):
                setting = f"{name}, {settings.steps}, {settings.policy.entropy_bound}"
                lines.append({**keys, "sampler": name, "setting": setting, **measure(loaded, settings, num_texts)})
        records.add(lines)


def samplers(is_autoregressive: bool) -> Iterator[tuple[str, GenerationSettings]]:
    """Yield the samplers of a model, by the curve they belong to."""
    plain = GenerationSettings(total_length=LENGTH, block_length=LENGTH - 1)
    if is_autoregressive:
        yield AUTOREGRESSION, plain
        return
    yield EXACT, replace(plain, policy=Policy("first_hitting"))
    for steps in STEPS:
        yield "random order", replace(plain, policy=Policy("random"), steps=steps)
        yield "surest first", replace(plain, policy=Policy("low_confidence"), steps=steps)
        in_blocks = replace(plain, block_length=16, cache="dual", policy=Policy("random"))
        yield "blocks of 16, dual cache", replace(in_blocks, steps=steps)
    for bound in (0.1, 0.5, 1.0, 2.0):
        yield "entropy bound", replace(plain, policy=Policy("entropy_bound", entropy_bound=bound))


def measure(loaded: LoadedModel, settings: GenerationSettings, num_texts: int) -> dict[str, float]:
    """Write documents and let the source judge them."""
    predictor = Predictor(loaded)
    canvas = Canvas.continuing([loaded.tokenizer.end_of_text_id], LENGTH, min_new_tokens=LENGTH)
    generations = predictor.generate([canvas] * num_texts, settings)
    beginnings = [possible_beginning(generation.completion) for generation in generations]
    letters = sum(map(len, beginnings))
    nats = -sum(map(hidden_markov.prefix_log_probability, beginnings))
    cost = predictor.last_cost
    return {
        "passes": cost.evaluations,
        "forwards_per_token": cost.token_forwards_per_token,
        "possible_share": letters / (num_texts * hidden_markov.DOCUMENT_LENGTH),
        "whole_share": sum(len(each) == hidden_markov.DOCUMENT_LENGTH for each in beginnings) / num_texts,
        "excess_nats": nats / max(1, letters) - hidden_markov.letters_source().entropy_rate_nats(),
    }


def possible_beginning(text: str) -> str:
    """Return the longest beginning of a text that some document has."""
    lengths = range(1, min(len(text), hidden_markov.DOCUMENT_LENGTH) + 1)
    possible = bisect(lengths, 0, key=lambda length: hidden_markov.prefix_log_probability(text[:length]) == -math.inf)
    return text[:possible]


def draw(records: Records) -> None:
    """Draw how far texts are possible and what they cost against work, of the large runs if there are any."""
    lines = records.select(large=records.holds(large=True))
    names = dict.fromkeys(line["sampler"] for line in lines)
    curves = {name: [line for line in lines if line["sampler"] == name] for name in names}
    panels = [
        Panel("share of letters before an impossible one", curves, WORK, "possible_share", by="setting"),
        Panel("nats per letter of these above the entropy", curves, WORK, "excess_nats", by="setting"),
    ]
    draw_panels(NAME, panels, ("positions through the network per letter", ""), is_log_y=False, has_common_y=False)


if __name__ == "__main__":
    main()
