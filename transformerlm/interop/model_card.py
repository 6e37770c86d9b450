"""The README.md of an exported model: what it is, how to use it, and what its run recorded."""

from dataclasses import dataclass

from transformerlm.checkpoint import LoadedModel
from transformerlm.interop.huggingface import count_parameters
from transformerlm.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class HeldOutLine:
    """One line of a run's closing table."""

    name: str
    nats_per_token: float
    bits_per_byte: float
    is_bound: bool


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a run recorded; None for what it did not."""

    run: str | None = None
    step: int | None = None
    tokens_seen: float | None = None
    validation_loss: float | None = None
    validation_step: int | None = None
    dataset: str | None = None
    held_out: tuple[HeldOutLine, ...] = ()


def render_card(loaded: LoadedModel, figures: RunFigures, is_diffusion: bool, dtype: str) -> str:
    """Return the card as Markdown, with the header that the Hub reads."""
    kind = "A masked-diffusion" if is_diffusion else "An autoregressive"
    header = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {'fill-mask' if is_diffusion else 'text-generation'}",
    ]
    header += ["tags:", "- transformerlm", *(["- diffusion", "- custom_code"] if is_diffusion else []), "---"]
    parts = [
        "\n".join(header),
        f"# {figures.run or 'A transformerlm model'}",
        f"{kind} language model trained with transformerlm.",
        _table(loaded.model.shape, count_parameters(loaded.model), dtype),
        _describe_run(figures, loaded.objective, is_diffusion),
        _describe_use(is_diffusion),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(shape: ModelShape, parameters: int, dtype: str) -> str:
    heads = f"{shape.num_heads} query, {shape.num_kv_heads} key and value, {shape.head_dim} features each"
    rows = {
        "parameters": f"{parameters:,}",
        "vocabulary": f"{shape.vocab_size:,} tokens",
        "context": f"{shape.context_length:,} tokens",
        "layers": f"{shape.num_layers}, {shape.d_model} features wide, feed-forward {shape.d_ff}",
        "heads": heads + (", queries and keys normalised" if shape.qk_norm else ""),
        "embeddings": "tied" if shape.tie_embeddings else "untied",
        "weights": dtype,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _describe_run(figures: RunFigures, objective: str, is_diffusion: bool) -> str:
    """Tell what was recorded, and nothing else."""
    facts = [f"objective `{objective}`"]
    if figures.dataset is not None:
        facts.append(f"data `{figures.dataset}`")
    if figures.step is not None:
        facts.append(f"{figures.step:,} steps")
    if figures.tokens_seen is not None:
        facts.append(f"{figures.tokens_seen:,.0f} tokens")
    lines = ["## Training", "", ", ".join(facts) + "."]
    if figures.validation_loss is not None:
        bound = "<= " if is_diffusion else ""
        loss = f"{bound}{figures.validation_loss:.4f} nats per token"
        lines += ["", f"Validation loss at step {figures.validation_step:,}: {loss}."]
    if figures.held_out:
        lines += ["", "Held-out text, as the run scored it at its end:", "", "| | nats per token | bits per byte |"]
        lines.append("|---|---|---|")
        lines += [_held_out_row(line) for line in figures.held_out]
    if is_diffusion and figures.validation_loss is not None:
        lines += ["", "`<=` marks an upper bound: the likelihood of a diffusion model is bounded, not computed."]
    return "\n".join(lines)


def _held_out_row(line: HeldOutLine) -> str:
    bound = "<= " if line.is_bound else ""
    return f"| {line.name} | {bound}{line.nats_per_token:.3f} | {bound}{line.bits_per_byte:.3f} |"


def _describe_use(is_diffusion: bool) -> str:
    """Show code that runs where this folder is the current one."""
    if not is_diffusion:
        return """## Use

```python
from transformers import pipeline

generate = pipeline("text-generation", model=".")
print(generate("Once upon a time")[0]["generated_text"])
```

Every text begins with `<|endoftext|>`, as in training; the tokenizer puts it there."""
    return """## Use

The modelling code comes with the weights: have a look at `modeling_transformerlm.py` before you trust it.

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
model = AutoModel.from_pretrained(".", trust_remote_code=True)
ids = model.generate(tokenizer("Once upon a time", return_tensors="pt").input_ids, temperature=1.0)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```

Every position sees all others, and its logits are those of its own token; `<|mask|>` stands where text is to be found.
Every text begins with `<|endoftext|>`, as in training; the tokenizer puts it there."""
