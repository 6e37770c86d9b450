"""Which backend encodes: readable Python at once, or compiled kernels once there is enough to do.

The kernels take a second or more to load and some twenty seconds to compile, that once per machine. Python encodes a
few million bytes per second. So "auto" starts in Python, adds up what was asked of it, and changes over when the rest
is likely to be worth it; a short prompt never waits for a compiler.
"""

from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np

from transformerlm.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformerlm.tokenizer.fast_encoding import FastEncoder

Backend = Literal["auto", "numba", "python"]
BACKENDS = ("auto", "numba", "python")

WORTH_LOADING_BYTES = 2**20
WORTH_COMPILING_BYTES = 2**25


class EncoderChoice:
    """Hand out the compiled encoder when it is wanted, and None as long as Python should do the work."""

    def __init__(self, vocabulary: Vocabulary, id_dtype: np.dtype, backend: Backend):
        check_backend(backend, vocabulary.pattern)
        self._vocabulary, self._id_dtype, self._backend = vocabulary, id_dtype, backend
        self._encoder: FastEncoder | None = None
        self._is_open = backend != "python" and vocabulary.pattern == "gpt2"
        self._bytes_asked, self._bytes_worth = 0, 0 if backend == "numba" else WORTH_LOADING_BYTES
        self._lock = Lock()

    def choose(self, num_bytes: int) -> "FastEncoder | None":
        """Return what should encode so many bytes more.

        Raises ValueError if backend = "numba" cannot be had.
        """
        if self._encoder is not None or not self._is_open:
            return self._encoder
        self._bytes_asked += num_bytes
        if self._bytes_asked >= self._bytes_worth:
            with self._lock:
                self._load()
        return self._encoder

    def _load(self) -> None:
        if self._encoder is not None:
            return  # another thread did
        is_wanted = self._backend == "numba"
        try:
            from transformerlm.tokenizer import fast_encoding
        except ImportError as error:
            self._is_open = False
            if is_wanted:
                raise ValueError(f"backend = 'numba' needs numba ({error}); install it or use 'auto'") from None
            return
        if not fast_encoding.can_encode(self._vocabulary):
            self._is_open = False
        elif (
            is_wanted
            or self._bytes_asked >= WORTH_COMPILING_BYTES
            or fast_encoding.encoding_is_compiled(self._id_dtype)
        ):
            self._encoder = fast_encoding.FastEncoder(self._vocabulary, self._id_dtype)
        else:
            self._bytes_worth = WORTH_COMPILING_BYTES


def check_backend(backend: str, pattern: str) -> None:
    """Refuse a backend that does not exist, or that does not know a pattern; raises ValueError."""
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is none of {', '.join(map(repr, BACKENDS))}")
    if backend == "numba" and pattern != "gpt2":
        raise ValueError(f"backend = 'numba' knows the pattern 'gpt2' only, not {pattern!r}; use 'auto' or 'python'")
