"""What transformerlm-train-tokenizer shows and writes: progress, a summary, and the files with their manifest."""

import hashlib
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from cli.tokenizer_corpus import count_name
from config.sections.data import TokenizerCorpusSection
from transformerlm.tokenizer import Tokenizer
from transformerlm.tokenizer.io import MERGES_FILE, SPECIAL_TOKENS_FILE, VOCAB_FILE
from transformerlm.tokenizer.trainer import BpeTrainer

MANIFEST_FILE = "manifest.json"
FILES = frozenset({VOCAB_FILE, MERGES_FILE, SPECIAL_TOKENS_FILE, MANIFEST_FILE})
NUM_LONGEST_TOKENS = 8
DISTINCT_CHARACTERS = 5


class TrainingBars:
    """Two progress bars on standard error, one after the other: bytes read, then merges learned."""

    def __init__(self, num_bytes: int | None, num_merges: int) -> None:
        """num_bytes: size of the corpus, None if unknown."""
        options = {"file": sys.stderr, "disable": None, "dynamic_ncols": True}
        self._reading = tqdm(total=num_bytes, unit="B", unit_scale=True, desc="reading", **options)
        self._options = {"total": num_merges, "unit": "merge", "desc": "merging", **options}
        self._merging: tqdm | None = None

    def __enter__(self) -> "TrainingBars":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._reading.close()
        if self._merging is not None:
            self._merging.close()

    def update(self, bytes_read: int, merges_learned: int) -> None:
        """Move the bar that is at work."""
        if not merges_learned:
            self._reading.update(bytes_read - self._reading.n)
            return
        if self._merging is None:
            self._reading.close()
            self._merging = tqdm(**self._options)
        self._merging.update(merges_learned - self._merging.n)


def describe_training(tokenizer: Tokenizer, trainer: BpeTrainer, data: TokenizerCorpusSection) -> list[str]:
    """Say what was read, how well the vocabulary compresses it, where the time went, and which tokens are longest."""
    report, settings = trainer.report, trainer.settings
    counted = count_name(data)
    texts = f"{report.documents:,} {counted if report.documents != 1 else counted[:-1]}, " if counted else ""
    seconds = report.reading_seconds + report.merging_seconds
    threads = f"{settings.threads} thread{'s' * (settings.threads != 1)}"
    return [
        f"corpus          {report.bytes_read / 1e6:,.2f} MB, {texts}{report.words:,} words, "
        f"{report.distinct_words:,} of them distinct",
        f"compression     {report.word_bytes / report.tokens:.3f} bytes per token, {report.tokens:,} tokens in all",
        f"time            {seconds:.1f} s: {report.reading_seconds:.1f} reading, "
        f"{report.merging_seconds:.1f} merging; {threads}",
        f"longest tokens  {', '.join(longest_tokens(tokenizer))}",
    ]


def longest_tokens(tokenizer: Tokenizer) -> list[str]:
    """Quote the longest tokens, which tell at a glance what a vocabulary was learned from; rulers say nothing."""
    special = set(tokenizer.special_tokens.values())
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size) if token not in special]
    texts = [piece.decode("utf-8", "replace") for piece in sorted(pieces, key=len, reverse=True)]
    telling = [text for text in texts if len(set(text)) >= DISTINCT_CHARACTERS] or texts
    return [repr(text if len(text) <= 40 else f"{text[:39]}…") for text in telling[:NUM_LONGEST_TOKENS]]


def render_files(tokenizer: Tokenizer, trainer: BpeTrainer, data: TokenizerCorpusSection) -> dict[str, bytes]:
    """Return the content of the tokenizer's three files and of the manifest that belongs to them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    manifest = make_manifest(tokenizer, trainer, data)
    manifest["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, MANIFEST_FILE: (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()}


def make_manifest(tokenizer: Tokenizer, trainer: BpeTrainer, data: TokenizerCorpusSection) -> dict[str, object]:
    """Say how a tokenizer was made; holds no times, so that making it again gives the same manifest."""
    report, settings = trainer.report, trainer.settings
    return {
        "made_by": "transformerlm-train-tokenizer",
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("transformerlm", "numpy", "numba", "regex")},
        "settings": {
            "vocab_size": settings.vocab_size,
            "special_tokens": list(settings.special_tokens),
            "pattern": tokenizer.vocabulary.pattern,
            "backend": settings.backend,
            "data": data.model_dump(mode="json", exclude_defaults=True),
        },
        "corpus": {
            "sha256": report.corpus_sha256,
            "bytes": report.bytes_read,
            **({counted: report.documents} if (counted := count_name(data)) else {}),
            "words": report.words,
            "distinct_words": report.distinct_words,
            "tokens": report.tokens,
        },
    }
