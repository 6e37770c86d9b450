"""The folder that transformerlm-prepare-data makes: tokens, the tokenizer they came from, a manifest, hashes."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.sections.data import TokenizerFilesSection
from trainkit.data.megatron_indexed import MegatronIndexedDataset
from trainkit.data.preparing import Counts, write_durably
from transformerlm.tokenizer import Tokenizer

MANIFEST_FILE = "manifest.json"
HASHES_FILE = "SHA256SUMS"
FORMAT = "transformerlm prepared data"
VERSION = 1
BLOCK_TOKENS = 2**22
MOST_FREQUENT = 20


@dataclass(frozen=True, slots=True)
class Description:
    """What a prepared folder holds."""

    settings: dict[str, Any]
    """What the tokens depend on: equal settings give equal files."""
    splits: dict[str, Counts]
    """File name, without .bin or .idx -> counts."""
    bad_records: int


def write_manifest(folder: Path, description: Description, tokenizer: Tokenizer) -> None:
    """Count the tokens, and write manifest.json."""
    counts = sum(count_tokens(folder / name, tokenizer.vocab_size) for name in description.splits)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "settings": description.settings,
        "splits": {
            name: {"documents": split.documents, "tokens": split.values, "text_bytes": split.text_bytes}
            for name, split in description.splits.items()
        },
        "bad_records": description.bad_records,
        "tokenizer": {"sha256": tokenizer.fingerprint(), "vocab_size": tokenizer.vocab_size},
        "histogram": summarize(counts, tokenizer),
    }
    write_durably(folder / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished folder, None if it has none that is ours."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        is_ours = manifest["format"] == FORMAT and {"settings", "splits", "tokenizer"} <= manifest.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if is_ours else None


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings that a finished folder was made with, None if it is none of ours."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest["settings"]


def open_tokens(prefix: str, tokenizer: Tokenizer) -> MegatronIndexedDataset:
    """Open a pair of files; raises ValueError if they hold no tokens, or those of another tokenizer.

    Only a manifest tells which tokenizer made them: to files without one any tokenizer may claim to be theirs.
    """
    dataset = MegatronIndexedDataset(prefix)
    if np.issubdtype(dataset.dtype, np.floating):
        raise ValueError(f"{prefix}.idx: holds {dataset.dtype.name} numbers, not token ids; name files of tokens")
    folder, name = Path(prefix).parent, Path(prefix).name
    manifest = read_manifest(folder)
    is_described = manifest is not None and name in manifest["splits"]
    if is_described and manifest["tokenizer"]["sha256"] != tokenizer.fingerprint():
        raise ValueError(
            f"{prefix}: {folder / MANIFEST_FILE} says that another tokenizer made these tokens; use the one that lies "
            "beside them, or prepare them with this one"
        )
    return dataset


def decode_documents(dataset: MegatronIndexedDataset, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of every document, without the end-of-text token behind it; raises ValueError naming a bad one."""
    for number in range(len(dataset)):
        tokens = dataset[number]
        if len(tokens) and tokens[-1] == tokenizer.end_of_text_id:
            tokens = tokens[:-1]
        try:
            yield tokenizer.decode(tokens)
        except ValueError as error:
            raise ValueError(f"{dataset.prefix}: document {number}: {error}") from error


def count_tokens(prefix: Path, vocab_size: int) -> np.ndarray:
    """Count how often each id occurs in a pair of files: [vocab_size] int64."""
    dataset = MegatronIndexedDataset(prefix)
    tokens = dataset.values.view(dataset.dtype)
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), BLOCK_TOKENS):
        counts += np.bincount(tokens[start : start + BLOCK_TOKENS], minlength=vocab_size)
    return counts


def summarize(counts: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a histogram of tokens in a few lines."""
    total = int(counts.sum())
    shares = counts[counts > 0] / max(1, total)
    most = np.argsort(-counts, kind="stable")[:MOST_FREQUENT]
    return {
        "tokens": total,
        "distinct_ids": len(shares),
        "unused_ids": int((counts == 0).sum()),
        "entropy_bits_per_token": round(float(-(shares * np.log2(shares)).sum()), 4),
        "most_frequent": [
            {"id": int(token), "text": tokenizer.token_bytes(int(token)).decode("utf-8", "replace"), "count": int(n)}
            for token, n in zip(most, counts[most], strict=True)
            if n > 0
        ],
    }


def choose_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type that Megatron knows and that holds every id: it has no uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def copy_tokenizer(files: TokenizerFilesSection, folder: Path, name: str) -> None:
    """Put the tokenizer's files beside the tokens: without them tokens mean nothing."""
    shutil.copyfile(files.vocab_path, folder / f"vocab_{name}.json")
    shutil.copyfile(files.merges_path, folder / f"merges_{name}.txt")
    shutil.copyfile(files.special_tokens_path, folder / f"special_tokens_{name}.json")


def write_hashes(folder: Path, names: Sequence[str]) -> None:
    """Write the SHA-256 of files as sha256sum does, which scripts/fetch_data.sh checks."""
    lines = []
    for name in names:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    write_durably(folder / HASHES_FILE, "".join(lines))
