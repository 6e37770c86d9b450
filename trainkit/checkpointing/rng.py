"""Capture and restore the process-wide random generators, so that dropout continues where it stopped."""

import random
from typing import Any

import numpy as np
import torch

from trainkit.training.seeding import mix_seed


def seed_process(seed: int, rank: int) -> None:
    """Seed Python, numpy and torch; each rank differently, or ranks would drop out the same units."""
    mixed = mix_seed(seed, "process", rank)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002 - the global generator is the one that third-party code uses
    torch.manual_seed(mixed)


def capture_rng() -> dict[str, Any]:
    """Return the states of all global generators as plain values and tensors."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": (version, words, gauss),
        "numpy": (name, keys.tolist(), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put all global generators back to a captured state."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
