"""[benchmark]: how transformerlm-bench-tokenizer measures."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from config.section import Section, rule

Task = Literal["encode", "lists", "decode", "prompt", "file", "train"]
Backend = Literal["auto", "numba", "python"]


class TokenizerBenchmarkSection(Section):
    """Throughput, memory and latency of the tokenizer."""

    text: str = ""
    """UTF-8 text file, documents separated by <|endoftext|>; empty generates the embedded stories."""
    megabytes: PositiveFloat | None = None
    """Use no more of the text than this [MB]. Default: all; the embedded stories have no end and require it."""
    tokenizer: str = ""
    """Folder of the vocabulary to encode with; empty learns one from the text first."""
    vocab_size: PositiveInt = 4096
    """Tokens of the vocabulary that is learned, also by the task `train`; one special token included."""
    backend: Backend = "numba"
    """Of our own tokenizer; "auto" would load the kernels while the first pass is timed."""
    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)] = (
        "encode",
        "lists",
        "decode",
        "prompt",
        "file",
        "train",
    )
    """What to measure: `lists` returns Python lists, `file` goes from a text file to a file of ids."""
    threads: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1,)
    """Numbers of threads for `file` and `train`, each pinned to a core; more than there are cores are left out."""
    rounds: PositiveInt = 5
    """Fresh processes for each figure; libraries take turns. Medians are reported."""
    passes: NonNegativeInt = 3
    """Passes in each process after the first one, when words are known already."""
    check_megabytes: PositiveFloat = 5.0
    """Part of the text on which all libraries must agree before anything is timed [MB]."""
    patience_s: PositiveFloat = 60.0
    """Measure a library that takes longer than this only once for that task [seconds]."""

    @rule("vocab_size")
    def vocabulary_has_room(vocab_size: int) -> str | None:
        """Require an id for every byte and the special token."""
        return None if vocab_size > 256 else f"{vocab_size} is below 257 = 256 bytes + 1 special token; raise it"

    @rule("megabytes", "text")
    def stories_are_cut(megabytes: float | None, text: str) -> str | None:
        """Require an end."""
        if text or megabytes is not None:
            return None
        return "required without a text, as the embedded stories have no end; try 10"
