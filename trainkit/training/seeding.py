"""Derive every random stream from one seed and the words that name the stream."""

import hashlib
import json

import torch


def mix_seed(*parts: int | str) -> int:
    """Mix numbers and words into a seed in [0, 2**63), the same on every machine and Python version.

    Python's own `hash` is salted per process, and seed + step would make neighbouring runs share their noise.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(device: torch.device, *parts: int | str) -> torch.Generator:
    """Return a fresh generator on `device`, seeded from `parts`."""
    return torch.Generator(device=device).manual_seed(mix_seed(*parts))
