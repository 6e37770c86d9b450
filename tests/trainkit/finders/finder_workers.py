"""What trial processes do in tests."""

import os
import signal


def hold(megabytes: int) -> int:
    """Touch so much memory."""
    kept = [bytearray(os.urandom(1024) * 1024) for _ in range(megabytes)]
    return len(kept)


def die() -> None:
    """End as the system ends a process for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def ask_for_too_much() -> None:
    """Ask torch for more than any machine has."""
    import torch

    torch.empty(2**50, dtype=torch.uint8)


def fail() -> None:
    raise ValueError("a setting is wrong")
