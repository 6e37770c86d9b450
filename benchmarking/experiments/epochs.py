"""Experiment (b): fixed text, many epochs. Autoregression overfits first; when does diffusion overtake it?

    python -m benchmarking.experiments.epochs
    python -m benchmarking.experiments.epochs --seeds 5 --large

Each run reads N documents of the hidden Markov language again and again at a constant learning rate, and is scored on
held-out documents on the way. The exact entropy is known, so a curve shows what is still lacking.
"""

from pathlib import Path

from benchmarking.experiments.measuring import KnownRows
from benchmarking.experiments.plots import BITS, Panel, draw_panels
from benchmarking.experiments.records import Options, Records, parse_options
from benchmarking.experiments.training import AUTOREGRESSIVE, MASKED, Arm, load_arm, log_spaced, train_and_measure
from config.sections.data import HIDDEN_MARKOV
from transformerlm.checkpoint import LoadedModel
from transformerlm.synthetic.languages import LANGUAGES

NAME, ARMS = "epochs", (AUTOREGRESSIVE, MASKED)
DOCUMENTS, DOCUMENTS_LARGE = (64, 256, 1024), (64, 256, 1024, 4096, 16384)
LARGE = ("model.d_model=256", "model.num_layers=6", "model.num_heads=8", "training.max_steps=20000")


def main() -> None:
    """Run what is missing, and draw the figure."""
    options, records = parse_options(__doc__), Records(NAME)
    if not options.is_plot_only:
        run(options, records)
    draw(records)


def run(options: Options, records: Records) -> None:
    """Train every arm on every number of documents with every seed."""
    for seed in range(options.seeds):
        for documents in DOCUMENTS_LARGE if options.is_large else DOCUMENTS:
            for arm in ARMS:
                keys = {"arm": arm.name, "documents": documents, "seed": seed, "large": options.is_large}
                if not records.holds(**keys):
                    records.add({**keys, **line} for line in run_one(arm, documents, seed, options.is_large))


def run_one(arm: Arm, documents: int, seed: int, is_large: bool) -> list[dict[str, float]]:
    """Train one model; every seed has documents of its own."""
    text = write_documents(documents, seed)
    config = load_arm(NAME, arm, seed, [f"data.data_files={text}", *(LARGE if is_large else ())])
    tokens_per_step = config.training.batch_size * config.model.context_length
    lines: list[dict[str, float]] = []
    held_out: list[KnownRows] = []

    def measure(loaded: LoadedModel, step: int) -> None:
        if not held_out:
            held_out.append(KnownRows.of(HIDDEN_MARKOV, loaded.tokenizer, config.model.context_length))
        epochs = step * tokens_per_step / (documents * config.model.context_length)
        lines.append({"step": step, "epochs": epochs, "excess_nats": held_out[0].excess_nats(loaded)})

    train_and_measure(config, log_spaced(config.training.max_steps, per_doubling=2, first=12), measure)
    return lines


def write_documents(documents: int, seed: int) -> Path:
    """Write the documents that this seed trains on, one per line."""
    path = Path("runs/experiments") / f"epochs_{documents}_{seed}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = seed * documents
    texts = [LANGUAGES[HIDDEN_MARKOV].document("train", first + index) for index in range(documents)]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def draw(records: Records) -> None:
    """Draw one panel per number of documents, that of the large runs if there are any."""
    is_large = records.holds(large=True)
    panels = []
    for documents in sorted({line["documents"] for line in records.select(large=is_large)}):
        lines = {arm.name: records.select(arm=arm.name, documents=documents, large=is_large) for arm in ARMS}
        panels.append(Panel(f"{documents} documents, {documents * 64:,} tokens", lines, "epochs", "excess_nats", BITS))
    draw_panels(NAME, panels, ("epochs over the text", "bits per token above the entropy"))


if __name__ == "__main__":
    main()
