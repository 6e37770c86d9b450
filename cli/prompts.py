"""What transformerlm-infer is asked to write: from the configuration, from --prompt, or one request per line of a file.

    Once upon a time                                                a prompt
    {"prompt": "Once upon a time", "seed": 7, "id": "a"}            the same with a seed, and a name for the output
    {"template": "Once {mask:8} a {mask:4}."}                       a text with gaps
    {"tokens": [4094, 17, 300]}                                     token ids, beginning with the end-of-text token

Needs no torch: what is asked is checked before the weights are loaded.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.sections.inference import InferenceSection
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.request import check_tokens, encode_prompt, encode_template, encode_with_gaps
from transformerlm.tokenizer import Tokenizer

KEYS = {"prompt": str, "template": str, "tokens": list, "mask_positions": list, "seed": int, "id": (str, int)}
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Ask:
    """One line of requests."""

    prompt: str = ""
    template: str = ""
    tokens: tuple[int, ...] = ()
    mask_positions: tuple[int, ...] = ()
    seed: int | None = None
    id: str | int | None = None
    place: str = "inference"
    """Where it was written, for messages."""

    def lay_out(self, tokenizer: Tokenizer, total_length: int, min_new_tokens: int) -> Canvas:
        """Return the row to fill; raises ValueError naming the place if it cannot be."""
        try:
            if self.template:
                return encode_template(tokenizer, self.template)
            if self.mask_positions:
                return encode_with_gaps(tokenizer, self.prompt, self.mask_positions)
            if self.tokens:
                check_tokens(self.tokens, tokenizer.vocab_size, tokenizer.mask_id)
            tokens = self.tokens or encode_prompt(tokenizer, self.prompt)
            return Canvas.continuing(tokens, total_length, min_new_tokens)
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from error

    def prompt_or(self, decoded: str) -> str:
        """Return the prompt as it was written, where there is one, else what its tokens decode to."""
        return self.prompt if self.prompt and not self.mask_positions else decoded


def collect_asks(section: InferenceSection, prompt: str | None, prompts: str | None) -> list[Ask]:
    """Return what is asked, each as often as num_samples says.

    prompt, prompts: of the command line; they go before the configuration.  Raises ValueError on a malformed line.
    """
    if prompts is not None:
        asks = list(read_asks(prompts))
    elif prompt is not None:
        asks = [Ask(prompt=prompt, mask_positions=section.mask_positions)]
    elif section.template:
        asks = [Ask(template=section.template)]
    else:
        asks = [Ask(prompt=section.prompt, mask_positions=section.mask_positions)]
    return [ask for ask in asks for _ in range(section.num_samples)]


def read_asks(path: str) -> Iterator[Ask]:
    """Read a file of requests, or standard input for "-"; empty lines count for nothing."""
    name = "standard input" if path == STDIN else path
    try:
        text = sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--prompts: cannot read {name} ({error}); name a text file with a request per line"
        ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"--prompts: {name} holds no request; write one per line")
    for number, line in lines:
        place = f"{name}:{number}"
        yield parse_ask(line, place) if line.lstrip().startswith("{") else Ask(prompt=line, place=place)


def parse_ask(line: str, place: str) -> Ask:
    """Read one JSON request; raises ValueError naming what is wrong with it."""
    try:
        table = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error}); a plain prompt must not begin with a brace") from error
    for key, value in table.items():
        if key not in KEYS:
            raise ValueError(f"{place}: unknown key {key!r}; known are {', '.join(KEYS)}")
        is_right = isinstance(value, KEYS[key]) and not isinstance(value, bool)
        if isinstance(value, list):
            is_right = is_right and all(type(each) is int for each in value)
            table[key] = tuple(value)
        if not is_right:
            raise ValueError(f"{place}: {key} cannot be {value!r}; see transformerlm-infer --help")
    ways = [key for key in ("prompt", "template", "tokens") if key in table]
    if len(ways) != 1:
        raise ValueError(f"{place}: give one of prompt, template and tokens, not {' and '.join(ways) or 'none'}")
    return Ask(**table, place=place)
