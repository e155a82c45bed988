"""The sweeps over a batch of two groups: for each geometry of the box, one that opens, one that moves, one that pulls.

A sweep keeps no array but the predictions. It returns for the two groups the sums of the predictions and of
W = -dy/dq. Both groups are summed at once as a total and the part of group 1, which vectorises.

The entropic step needs no exponential per sample. With E = exp(-q) of the group, y = z E / (z E + 1 - z), written with
the two numbers (a, b) = (E, 1) or (1, 1 / E), whichever does not overflow: y = a z / (a z + b (1 - z)). From logits,
with e = exp(-x) computed once, y = a / (a + b e).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairlayer.fused.compiling import compiled

__all__ = [
    "ENTROPIC",
    "EUCLIDEAN",
    "LIKELIHOOD",
    "LOGITS",
    "discriminant",
    "odds",
    "open_box",
    "open_logits",
    "open_probabilities",
    "sweep_entropic",
    "sweep_euclidean",
    "sweep_likelihood",
    "sweep_logits",
]

EUCLIDEAN, ENTROPIC, LIKELIHOOD, LOGITS = 0, 1, 2, 3
"""The geometries as numbers; the last is the entropic one from logits."""


@compiled
def open_box(z: Any, codes: Any, lower: float, upper: float) -> Any:
    """Sweep at pull 0 with bounds: (rows of group 1, all codes or-ed, sums, sums of W, sums of |z|)."""
    ones, bits = 0, 0
    total, second, free, second_free, size, second_size = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(z.shape[0]):
        code = codes[i]
        one, x = float(code), np.float64(z[i])
        y = min(max(x, lower), upper)
        w = 1.0 if (x >= lower) & (x <= upper) else 0.0
        ones += code
        bits |= code
        total += y
        second += one * y
        free += w
        second_free += one * w
        size += abs(x)
        second_size += one * abs(x)
    return ones, bits, total - second, second, free - second_free, second_free, size - second_size, second_size


@compiled
def open_probabilities(z: Any, codes: Any, least: float, most: float) -> Any:
    """Sweep at pull 0: (rows of group 1, all codes or-ed, sums, sums of W, scores outside [least, most]).

    At pull 0 the entropic geometry and the likelihood have the same W, y (1 - y).
    """
    ones, bits, outside = 0, 0, 0
    total, second, free, second_free = 0.0, 0.0, 0.0, 0.0
    for i in range(z.shape[0]):
        code = codes[i]
        one, y = float(code), np.float64(z[i])
        w = y * (1.0 - y)
        ones += code
        bits |= code
        outside += 0 if (y >= least) & (y <= most) else 1
        total += y
        second += one * y
        free += w
        second_free += one * w
    return ones, bits, total - second, second, free - second_free, second_free, outside


@compiled
def open_logits(x: Any, codes: Any, e: Any) -> Any:
    """Sweep at pull 0, and fill e with exp(-x): (rows of group 1, all codes or-ed, sums, sums of W, sum of |x|)."""
    ones, bits = 0, 0
    total, second, free, second_free, size = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        e[i] = math.exp(-np.float64(x[i]))
        size += abs(np.float64(x[i]))
    for i in range(x.shape[0]):
        code = codes[i]
        one = float(code)
        y = 1.0 / (1.0 + e[i])
        w = y * (1.0 - y)
        ones += code
        bits |= code
        total += y
        second += one * y
        free += w
        second_free += one * w
    return ones, bits, total - second, second, free - second_free, second_free, size


@compiled
def odds(pull: float) -> Any:
    """Return (a, b) with a / b = exp(-pull), neither of them large."""
    small = math.exp(-abs(pull))
    return (small, 1.0) if pull >= 0.0 else (1.0, small)


@compiled
def sweep_euclidean(z: Any, codes: Any, out: Any, pull0: float, pull1: float, lower: float, upper: float) -> Any:
    """Write y = clip(z - q); return the sums of y and of W for groups 0 and 1."""
    total, second, free, second_free = 0.0, 0.0, 0.0, 0.0
    for i in range(z.shape[0]):
        code = codes[i]
        one = float(code)
        moved = np.float64(z[i]) - (pull1 if code else pull0)
        y = min(max(moved, lower), upper)
        w = 1.0 if (moved >= lower) & (moved <= upper) else 0.0
        out[i] = y
        total += y
        second += one * y
        free += w
        second_free += one * w
    return total - second, second, free - second_free, second_free


@compiled
def sweep_entropic(z: Any, codes: Any, out: Any, pull0: float, pull1: float, least: float, most: float) -> Any:
    """Write y = a z / (a z + b (1 - z)) within [least, most]; return the sums of y and of W for groups 0 and 1."""
    a0, b0 = odds(pull0)
    a1, b1 = odds(pull1)
    total, second, free, second_free = 0.0, 0.0, 0.0, 0.0
    for i in range(z.shape[0]):
        code = codes[i]
        one, p = float(code), np.float64(z[i])
        up = (a1 if code else a0) * p
        y = up / (up + (b1 if code else b0) * (1.0 - p))
        w = y * (1.0 - y)
        out[i] = min(max(y, least), most)
        total += y
        second += one * y
        free += w
        second_free += one * w
    return total - second, second, free - second_free, second_free


@compiled
def sweep_logits(e: Any, codes: Any, out: Any, pull0: float, pull1: float, least: float, most: float) -> Any:
    """Write y = a / (a + b e) within [least, most]; return the sums of y and of W for groups 0 and 1."""
    a0, b0 = odds(pull0)
    a1, b1 = odds(pull1)
    total, second, free, second_free = 0.0, 0.0, 0.0, 0.0
    for i in range(e.shape[0]):
        code = codes[i]
        one = float(code)
        a, b = (a1 if code else a0), (b1 if code else b0)
        y = a / (a + b * e[i])
        w = y * (1.0 - y)
        out[i] = min(max(y, least), most)
        total += y
        second += one * y
        free += w
        second_free += one * w
    return total - second, second, free - second_free, second_free


@compiled
def discriminant(p: float, q: float) -> float:
    """Return sqrt((1 + q)^2 - 4 q p) as the root of a sum, in which nothing cancels."""
    size = abs(q)
    near = 1.0 - size
    return math.sqrt(near * near + 4.0 * size * ((1.0 - p) if q > 0.0 else p))


@compiled
def sweep_likelihood(z: Any, codes: Any, out: Any, pull0: float, pull1: float, least: float, most: float) -> Any:
    """Write the root of q y^2 - (1 + q) y + z = 0 in (0, 1); return the sums of y and of W for groups 0 and 1."""
    total, second, free, second_free = 0.0, 0.0, 0.0, 0.0
    for i in range(z.shape[0]):
        code = codes[i]
        one, p = float(code), np.float64(z[i])
        q = pull1 if code else pull0
        whole = 1.0 + q
        root = discriminant(p, q)
        y = 2.0 * p / (whole + root) if whole > 0.0 else (root - whole) / (-2.0 * q)
        spread = y * (1.0 - y)
        w = spread * spread / (p * (1.0 - y) * (1.0 - y) + (1.0 - p) * y * y)
        out[i] = min(max(y, least), most)
        total += y
        second += one * y
        free += w
        second_free += one * w
    return total - second, second, free - second_free, second_free
