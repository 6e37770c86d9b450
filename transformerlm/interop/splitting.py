"""How other tokenizers write down the patterns by which text is cut.

Each pattern has one form in a tokenizer.json, and one regular expression for tiktoken. A pattern that is not listed is
refused both ways: the engines (Oniguruma there, `regex` here, fancy-regex in tiktoken) disagree on constructs that
look the same.

With the pattern of GPT-2 every character is treated alike. With the others, some characters are not: those 17,000 or
so (13 for gpt2_digits) that became letters or digits in Unicode 16 or 17, which the engines know to different degrees.
"""

from collections.abc import Mapping, Sequence

from transformerlm.tokenizer.pretokenize import PATTERNS

Step = Mapping[str, object]
"""One pre-tokenizer of a tokenizer.json."""

# Patterns that have no name here; all three engines understand these expressions alike.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# In Oniguruma's syntax `$` ends every line and `{1,3}+` is a repeated repetition: \z and atomic groups say the same.
_CL100K_FOR_ONIGURUMA = (
    r"'(?i:[sdmt]|ll|ve|re)|(?>[^\r\n\p{L}\p{N}]?)(?>\p{L}+)|(?>\p{N}{1,3})| ?(?>[^\s\p{L}\p{N}]+)(?>[\r\n]*)"
    r"|(?>\s+)\z|\s*[\r\n]|\s+(?!\S)|\s"
)
_GPT2_IN_TIKTOKEN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

_BYTES: Step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2: Step = {**_BYTES, "use_regex": True}


def _split(expression: str) -> Step:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


_STEPS: dict[str, list[Step]] = {
    "gpt2": [_GPT2],
    "gpt2_digits": [{"type": "Digits", "individual_digits": True}, _GPT2],
    "cl100k": [_split(_CL100K_FOR_ONIGURUMA), _BYTES],
    "o200k": [_split(PATTERNS["o200k"]), _BYTES],
    LLAMA3: [_split(LLAMA3), _BYTES],
    QWEN2: [_split(QWEN2), _BYTES],
}


def steps_of(pattern: str) -> Sequence[Step]:
    """Return the pre-tokenizers that cut text like one of our patterns.

    Raises ValueError for a pattern that has no known form there.
    """
    if pattern not in _STEPS:
        raise ValueError(
            f"the pattern {pattern!r} has no form known to cut alike in other tokenizers; "
            f"{', '.join(PATTERNS)} and the patterns of Llama 3 and Qwen 2 have"
        )
    return _STEPS[pattern]


def pattern_of(steps: Sequence[Step]) -> str:
    """Return our pattern that cuts text like these pre-tokenizers.

    Raises ValueError, saying what they do instead.
    """
    found = [_decisive(step) for step in steps]
    for pattern, known in _STEPS.items():
        if found == [_decisive(step) for step in known]:
            return pattern
    described = ", then ".join(_describe(step) for step in steps) or "none"
    raise ValueError(f"its pre-tokenizer ({described}) is none that is known to cut text as a pattern here does")


def expression_of(pattern: str) -> str:
    """Return the regular expression of a pattern for tiktoken; raises ValueError as `steps_of` does."""
    steps_of(pattern)
    return PATTERNS.get(pattern, pattern)


def pattern_of_expression(expression: str) -> str:
    """Return our pattern for a regular expression of tiktoken; raises ValueError for one that is not known."""
    if expression == _GPT2_IN_TIKTOKEN:
        return "gpt2"
    for pattern in _STEPS:
        if expression in (pattern, PATTERNS.get(pattern)):
            return pattern
    raise ValueError(f"the pattern {expression!r} is none that is known to cut text as a pattern here does")


def _decisive(step: Step) -> tuple[object, ...]:
    """Reduce a step to what decides where text is cut; what is left out of a file has its default there."""
    kind = step.get("type")
    if kind == "ByteLevel":
        return kind, step.get("add_prefix_space", True), step.get("use_regex", True)
    if kind == "Digits":
        return kind, step.get("individual_digits", False)
    if kind == "Split":
        pattern = step.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, Mapping) else pattern
        return kind, expression, step.get("behavior"), step.get("invert", False)
    return kind, str(step)


def _describe(step: Step) -> str:
    """Name a step in a refusal."""
    settings = [f"{name} = {value}" for name, value in step.items() if name not in ("type", "trim_offsets")]
    return " ".join([str(step.get("type")), *settings])
