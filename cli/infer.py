"""transformerlm-infer: generate text from a trained model."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.command import Command, run_command

if TYPE_CHECKING:
    from cli.prompts import Ask
    from config.roots import InferConfig
    from transformerlm.inference.canvas import Canvas
    from transformerlm.inference.predictor import Generation, GenerationSettings, Predictor
    from transformerlm.inference.trace import Trace

COMMAND = Command(
    name="transformerlm-infer",
    summary="Generate text from a trained model: token by token, or denoised in place, as the model was trained.",
    config_name="InferConfig",
    override="inference.seed=7",
    example="""\
examples:
  transformerlm-infer --config config/resources/infer.toml --prompt "Long ago"
      continue a prompt with the newest run; on a terminal the text appears as it is made
  transformerlm-infer --config config/resources/infer.toml --set inference.template="Once {mask:8} a {mask:4}."
      fill gaps
  transformerlm-infer --config config/resources/infer.toml --prompts prompts.jsonl --json > texts.jsonl
      one request per line: a plain prompt, or {"prompt": "...", "seed": 7, "id": "a"} with template or tokens instead
      of prompt; "-" reads standard input
  transformerlm-infer --config config/resources/infer.toml --trace trace.html
      keep every step, to be looked at in a browser (.json for programs)
""",
    computes=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(COMMAND, infer, argv, add_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is no setting but a matter of this call: inputs and outputs."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="continue this instead of inference.prompt")
    source.add_argument("--prompts", metavar="FILE", help='one request per line; "-" is standard input')
    parser.add_argument("--json", action="store_true", help="print one JSON object per text and line")
    parser.add_argument("--log-probs", action="store_true", help="with --json, add the log-probability of each token")
    parser.add_argument("--trace", metavar="FILE", help="record every step: a page if it ends in .html, else JSON")


@dataclass(frozen=True, slots=True)
class Task:
    """One text to generate."""

    ask: "Ask"
    canvas: "Canvas"
    seed: int


def infer(config: "InferConfig", options: argparse.Namespace) -> int:
    """Check the requests, load the model, generate, print; returns the exit code."""
    if options.log_probs and not options.json:
        raise ValueError("--log-probs: only JSON has a place for them; add --json")
    tasks = prepare(config, options)
    from cli.build import build_generation
    from transformerlm.inference.predictor import Predictor
    from transformerlm.utils.dtypes import cast_weights

    section = config.inference
    predictor = Predictor.from_checkpoint(config.checkpoint.path, section.device, config.checkpoint.weights)
    cast_weights(predictor.model, section.precision)
    settings = build_generation(section, predictor.model.shape)
    trace = predictor.new_trace(settings) if options.trace else None
    if sys.stdout.isatty() and not options.json:
        show_live(predictor, tasks, settings, trace)
    else:
        print_all(generate_batches(predictor, tasks, settings, section.batch_size, trace), options)
    if trace is not None:
        save_trace(trace, predictor, options.trace)
    return 0


def prepare(config: "InferConfig", options: argparse.Namespace) -> list[Task]:
    """Lay out every text, refusing what the checkpoint cannot do before torch and the weights are loaded.

    Raises ValueError.
    """
    from cli.prompts import collect_asks
    from transformerlm.checkpoint_description import TOKENIZER_FOLDER, find_checkpoint, read_description
    from transformerlm.inference.request import check_plan, row_seed
    from transformerlm.tokenizer import Tokenizer

    section = config.inference
    asks = collect_asks(section, options.prompt, options.prompts)
    folder = find_checkpoint(config.checkpoint.path)
    shape, objective = read_description(folder)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FOLDER)
    total_length = section.total_length or shape.context_length
    tasks = []
    for index, ask in enumerate(asks):
        canvas = ask.lay_out(tokenizer, total_length, section.min_new_tokens)
        seed = row_seed(section.seed if ask.seed is None else ask.seed, index if ask.seed is None else 0)
        tasks.append(Task(ask, canvas, seed))
    check_plan([task.canvas for task in tasks], total_length, shape, objective, plan_of(config))
    return tasks


def plan_of(config: "InferConfig"):
    """Return what the settings say of modes, caches, blocks and steps."""
    from transformerlm.inference.request import PlanRequest

    section = config.inference
    return PlanRequest(section.generation_mode, section.cache, section.remasking, section.steps, section.block_length)


def generate_batches(
    predictor: "Predictor",
    tasks: Sequence[Task],
    settings: "GenerationSettings",
    batch_size: int,
    trace: "Trace | None",
) -> Iterator[tuple[Task, "Generation"]]:
    """Generate the texts batch by batch, in their order, with a progress bar on a terminal."""
    from tqdm import tqdm

    with tqdm(total=len(tasks), desc="texts", unit="text", file=sys.stderr, disable=None) as bar:
        for start in range(0, len(tasks), batch_size):
            batch = tasks[start : start + batch_size]
            generations = predictor.generate(
                [task.canvas for task in batch], settings, seeds=[task.seed for task in batch], trace=trace
            )
            bar.update(len(batch))
            yield from zip(batch, generations, strict=True)


def print_all(results: Iterator[tuple[Task, "Generation"]], options: argparse.Namespace) -> None:
    """Print texts with an empty line between them, or JSON lines."""
    for index, (task, generation) in enumerate(results):
        if options.json:
            print(json.dumps(describe(task, generation, options.log_probs), ensure_ascii=False), flush=True)
        else:
            print(("\n" if index else "") + task.ask.prompt_or(generation.prompt) + generation.completion, flush=True)


def describe(task: Task, generation: "Generation", has_log_probs: bool) -> dict[str, object]:
    """Return a finished text as plain values."""
    record: dict[str, object] = {} if task.ask.id is None else {"id": task.ask.id}
    record |= {
        "prompt": task.ask.prompt_or(generation.prompt),
        "completion": generation.completion,
        "prompt_tokens": generation.prompt_tokens,
        "generated_tokens": generation.generated_tokens,
        "finish": generation.finish,
        "seed": task.seed,
    }
    return record | ({"log_probs": list(generation.log_probs)} if has_log_probs else {})


def show_live(
    predictor: "Predictor", tasks: Sequence[Task], settings: "GenerationSettings", trace: "Trace | None"
) -> None:
    """Generate one text after the other, each visible as it appears; the same texts as all at once."""
    from cli.display import LiveText

    for task in tasks:
        live = LiveText(sys.stdout)
        beginning = task.ask.prompt_or(predictor.tokenizer.decode(task.canvas.tokens[1 : task.canvas.beginning]))
        live.show(beginning)
        (generation,) = predictor.generate(
            [task.canvas],
            settings,
            on_update=lambda _, text, live=live, beginning=beginning: live.show(beginning + text),
            seeds=[task.seed],
            trace=trace,
        )
        live.finish(beginning + generation.completion)
        cost = predictor.last_cost
        print(
            f"[{generation.generated_tokens} tokens, {cost.work.passes} passes, "
            f"{cost.token_forwards_per_token:.1f} token-forwards per token, {cost.seconds:.2f} s]\n",
            file=sys.stderr,
        )


def save_trace(trace: "Trace", predictor: "Predictor", path: str) -> None:
    """Write the trace as a page or as JSON, by the file's ending."""
    from transformerlm.inference.trace_page import write_page

    if path.endswith((".html", ".htm")):
        write_page(trace, predictor.tokenizer, path)
    else:
        trace.save(path)
    print(f"trace: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
