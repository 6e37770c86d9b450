"""Token ids back to bytes."""

import numpy as np

from transformerlm.tokenizer.kernels.memory import load64, store64
from transformerlm.utils.jit import kernel

SLACK_BYTES = 16
"""Read and written behind each token: copying two words at once is quicker than asking how many bytes there are."""


@kernel
def decode_ids(ids, offsets, lengths, token_bytes, out):
    """Write the bytes of tokens one after the other; returns how many.

    ids: unsigned integers below len(lengths).  offsets: int64 [tokens] and lengths: int64 [tokens], where each token
    lies in token_bytes, which is SLACK_BYTES longer.  out: uint8, as long as the bytes and SLACK_BYTES more.
    """
    written = np.int64(0)
    for index in range(ids.size):
        token = np.int64(ids[index])
        offset, length = offsets[token], lengths[token]
        store64(out, written, load64(token_bytes, offset))
        store64(out, written + 8, load64(token_bytes, offset + 8))
        for byte in range(SLACK_BYTES, length):
            out[written + byte] = token_bytes[offset + byte]
        written += length
    return written
