"""Small configurations to break."""

import copy
from pathlib import Path
from typing import Any

import pytest
import tomli_w

TRAIN = {
    "model": {"vocab_size": 320, "context_length": 64, "d_model": 48, "num_layers": 2, "num_heads": 6},
    "objective": {"name": "autoregressive"},
    "optimizer": {"name": "adamw", "max_learning_rate": 1e-3},
    "training": {"max_steps": 100, "batch_size": 4},
    "data": {
        "pipeline_mode": "packed",
        "dataset_name": "synthetic/stories",
        "tokenizer": {"vocab_path": "vocab.json", "merges_path": "merges.txt", "special_tokens_path": "special.json"},
    },
}


@pytest.fixture
def train_table() -> dict[str, Any]:
    """Return the smallest training configuration, to be changed freely."""
    return copy.deepcopy(TRAIN)


@pytest.fixture
def write_toml(tmp_path):
    """Return a function that writes a table, or TOML text, to a file and returns its path."""

    def write(content: dict[str, Any] | str, name: str = "config.toml") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else tomli_w.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def train_file(write_toml, train_table) -> Path:
    """Return a file with the smallest training configuration."""
    return write_toml(train_table)


@pytest.fixture
def root() -> Path:
    """Return the folder of the repository."""
    return Path(__file__).parents[2]
