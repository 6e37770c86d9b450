"""A matrix times few rows, norms and rotations of few rows, and draws.

The matrix is read once, by all threads, and each of its numbers feeds two sums:

              x[r]  x[r+1]
    w[i]       .      .
    w[i+1]     .      .        eight sums stay in registers while k runs
    w[i+2]     .      .
    w[i+3]     .      .
"""

import numpy as np
from numba import prange

from transformerlm.utils.jit import inlined_reordering, parallel_kernel, reordering_kernel

TILE = 4
"""Rows of the matrix taken together."""
GROUP = 64
"""Tokens summed together before the one that is drawn is looked for."""
STRETCH = 1024
"""Columns taken together: a tile so long stays in the first level of cache while all rows pass by."""


@inlined_reordering
def dot(x, y):
    """Return the sum of products of two rows."""
    total = np.float32(0)
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


@parallel_kernel
def multiply(x, weight, out, chunks):
    """Compute x times the transposed weight.

    x: [rows, in], weight: [out, in], out: [rows, out] zeros, all float32 and contiguous.  chunks: parts to share out.
    """
    rows, width = x.shape
    tiles = len(weight) // TILE
    if rows == 1:  # nothing is used twice: one row of the matrix after the other is what memory likes best
        for chunk in prange(chunks):
            for i in range(len(weight) * chunk // chunks, len(weight) * (chunk + 1) // chunks):
                out[0, i] = dot(weight[i], x[0])
        return
    for chunk in prange(chunks):
        for tile in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            i = tile * TILE
            for start in range(0, width, STRETCH):
                columns = slice(start, min(start + STRETCH, width))
                w0, w1 = weight[i, columns], weight[i + 1, columns]
                w2, w3 = weight[i + 2, columns], weight[i + 3, columns]
                for r in range(0, rows - 1, 2):
                    x0, x1 = x[r, columns], x[r + 1, columns]
                    a = b = c = d = e = f = g = h = np.float32(0)
                    for k in range(len(x0)):
                        a += w0[k] * x0[k]
                        b += w1[k] * x0[k]
                        c += w2[k] * x0[k]
                        d += w3[k] * x0[k]
                        e += w0[k] * x1[k]
                        f += w1[k] * x1[k]
                        g += w2[k] * x1[k]
                        h += w3[k] * x1[k]
                    out[r, i] += a
                    out[r, i + 1] += b
                    out[r, i + 2] += c
                    out[r, i + 3] += d
                    out[r + 1, i] += e
                    out[r + 1, i + 1] += f
                    out[r + 1, i + 2] += g
                    out[r + 1, i + 3] += h
                if rows % 2:
                    r = rows - 1
                    x0 = x[r, columns]
                    out[r, i] += dot(w0, x0)
                    out[r, i + 1] += dot(w1, x0)
                    out[r, i + 2] += dot(w2, x0)
                    out[r, i + 3] += dot(w3, x0)
    for i in range(tiles * TILE, len(weight)):
        for r in range(rows):
            out[r, i] = dot(weight[i], x[r])


@inlined_reordering
def scale_of(x, eps):
    """Return what RMSNorm multiplies x: [features] with, before its weight."""
    return np.float32(1) / np.sqrt(dot(x, x) / np.float32(len(x)) + np.float32(eps))


@reordering_kernel
def normalize(x, weight, eps, out):
    """Write RMSNorm of x: [rows, features] to out, of the same shape."""
    for r in range(len(x)):
        scale = scale_of(x[r], eps)
        for k in range(len(weight)):
            out[r, k] = x[r, k] * scale * weight[k]


@reordering_kernel
def rotate_heads(heads, num_kv_heads, cos, sin, query_weight, key_weight, eps):
    """Normalize queries and keys, if their weights are not empty, and rotate them, in place.

    heads: [rows, heads, head_dim], queries, keys and values.  cos, sin: [some, head_dim] for the rows, again and again.
    """
    rows, count, width = heads.shape
    half = width // 2
    for r in range(rows):
        angle = r % len(cos)
        for head in range(count - num_kv_heads):
            weight = query_weight if head < count - 2 * num_kv_heads else key_weight
            x = heads[r, head]
            if len(weight):
                scale = scale_of(x, eps)
                for k in range(width):
                    x[k] *= scale * weight[k]
            for k in range(half):
                first, second = x[k], x[k + half]
                x[k] = first * cos[angle, k] + second * sin[angle, k]
                x[k + half] = second * cos[angle, k + half] + first * sin[angle, k + half]


@inlined_reordering
def sum_of(x):
    """Return the sum of a row in float64."""
    total = np.float64(0)
    for k in range(len(x)):
        total += np.float64(x[k])
    return total


@parallel_kernel
def invert_distribution(probabilities, uniforms, tokens, chunks):
    """Find for each row the first token at which the summed probabilities exceed the uniform number.

    probabilities: [rows, vocabulary] float32, up to a common factor, summed in float64.  uniforms: [rows] float64 in
    [0, 1).  tokens: [rows] int64, written; never one of probability zero, unless a row has no other.
    chunks: parts to share out.
    """
    rows, size = probabilities.shape
    groups = (size + GROUP - 1) // GROUP
    for chunk in prange(chunks):
        sums = np.empty(groups, np.float64)
        for r in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            for group in range(groups):
                sums[group] = sum_of(probabilities[r, group * GROUP : (group + 1) * GROUP])
            target = uniforms[r] * sums.sum()
            group, reached = 0, np.float64(0)
            while group < groups - 1 and reached + sums[group] <= target:
                reached += sums[group]
                group += 1
            found = -1
            while found < 0 and group >= 0:
                for token in range(group * GROUP, min((group + 1) * GROUP, size)):
                    reached += probabilities[r, token]
                    if probabilities[r, token] > 0:
                        found = token
                        if reached > target:
                            break
                # Rounding may let the target lie beyond the last sum: then it is the last token that is possible.
                target, group = np.inf, group - 1
            tokens[r] = max(found, 0)


def warm_up():
    """Call every kernel."""
    one = np.ones((1, 2), np.float32)
    multiply(one, one, np.zeros((1, 1), np.float32), 1)
    normalize(one, one[0], 1.0, one.copy())
    invert_distribution(one, np.zeros(1), np.zeros(1, np.int64), 1)
    rotate_heads(np.ones((1, 3, 2), np.float32), 1, one, one, one[0], one[0], 1.0)
