"""One call for the commonest problem: two groups whose mean predictions may differ by at most a tolerance.

With s = +1 or -1 for the side that is violated at the start, the one multiplier lambda >= 0 pulls group 0 by
q_0 = s lambda / n_0 and group 1 by q_1 = -s lambda / n_1, and

    excess(lambda) = s (mean_0 - mean_1) - tolerance,     slope = -(W_0 / n_0^2 + W_1 / n_1^2)

falls monotonically: Newton's method inside a bracket, as in `fairlayer.solve.scalar`. Of an upstream v the adjoint is

    u = (mean_0(W v) - mean_1(W v)) / (W_0 / n_0^2 + W_1 / n_1^2),     dz = dy/dz (v - (+u / n_0 or -u / n_1))

Arrays come as addresses, and everything else as numbers, which cost a tenth of what arrays cost to hand over.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from fairlayer.fused.compiling import compiled, entry, float32_at, float64_at, int64_at
from fairlayer.fused.steps import (
    ENTROPIC,
    EUCLIDEAN,
    LOGITS,
    discriminant,
    odds,
    open_box,
    open_logits,
    open_probabilities,
    sweep_entropic,
    sweep_euclidean,
    sweep_likelihood,
    sweep_logits,
)

__all__ = [
    "adjoint_float32",
    "adjoint_float64",
    "entry",
    "solve_float32",
    "solve_float64",
]

NOT_TWO_GROUPS, NO_NUMBERS, UNFINISHED, ALL_HELD = -1.0, -2.0, -3.0, -4.0
"""Why nothing was solved: other codes than 0 and 1, or one of them alone; scores out of range; accuracy missed; every
prediction at a bound. It stands where the sweeps would."""

SWEEPS, MULTIPLIER, ONES, FREE0, FREE1, UNMOVED = 0, 1, 2, 3, 4, 5
"""What a solve returns: sweeps, s lambda, rows of group 1, the sums of W of both groups, and whether the projection is
the identity here: no statement holds with equality, no bound holds a prediction, and scores are predictions."""

_MOST_SWEEPS = 200
_LONGEST_STEP = 4.0  # of a curved geometry, as `Geometry.longest_step`
_LARGEST = 1e100


@compiled
def _failed(why: float) -> Any:
    return why, 0.0, 0.0, 0.0, 0.0, False


@compiled
def _solve(z: Any, codes: Any, out: Any, tolerance: float, ends: Any, geometry: int, lower: float, upper: float) -> Any:
    n = z.shape[0]
    size = 1.0
    e = np.empty(n if geometry == LOGITS else 0)
    if geometry == EUCLIDEAN:
        ones, bits, s0, s1, k0, k1, size0, size1 = open_box(z, codes, lower, upper)
        if not size0 + size1 < n * _LARGEST:
            return _failed(NO_NUMBERS)
    elif geometry == LOGITS:
        ones, bits, s0, s1, k0, k1, size0 = open_logits(z, codes, e)
        if not size0 < _LARGEST:
            return _failed(NO_NUMBERS)
        size0, size1 = 0.0, 0.0
    else:
        ones, bits, s0, s1, k0, k1, outside = open_probabilities(z, codes, lower, upper)
        size0, size1 = 0.0, 0.0
        if outside > 0:
            return _failed(NO_NUMBERS)
    if bits & ~1 or ones in (0, n):
        return _failed(NOT_TWO_GROUPS)
    n0, n1 = float(n - ones), float(ones)
    if geometry == EUCLIDEAN:
        bounded = lower > -np.inf and upper < np.inf
        size = max(abs(lower), abs(upper)) if bounded else 2.0 * max(size0 / n0, size1 / n1)
    atol = (1e-13 + 1e-15 * math.sqrt(float(n))) * max(1.0, size)
    gap = s0 / n0 - s1 / n1
    if not abs(gap) < _LARGEST:
        return _failed(NO_NUMBERS)
    side = 1.0 if gap > 0.0 else -1.0
    excess = abs(gap) - tolerance
    multiplier, low, high, sweeps = 0.0, 0.0, np.inf, 1
    if excess > atol:
        longest = np.inf if geometry == EUCLIDEAN else _LONGEST_STEP * min(n0, n1)
        while sweeps <= _MOST_SWEEPS:
            if excess > 0.0:
                low = multiplier
            else:
                high = multiplier
            slope = k0 / (n0 * n0) + k1 / (n1 * n1)
            most = min(high, 2.0 * multiplier + longest)
            step = multiplier + excess / slope if slope > 0.0 else np.inf
            if not (low < step < most):
                if most < np.inf:
                    step = 0.5 * (low + most)
                else:
                    step = 2.0 * multiplier if multiplier > 0.0 else 1.0
            multiplier = step
            pull0, pull1 = side * multiplier / n0, -side * multiplier / n1
            if geometry == LOGITS:
                s0, s1, k0, k1 = sweep_logits(e, codes, out, pull0, pull1, ends[0], ends[1])
            elif geometry == EUCLIDEAN:
                s0, s1, k0, k1 = sweep_euclidean(z, codes, out, pull0, pull1, lower, upper)
            elif geometry == ENTROPIC:
                s0, s1, k0, k1 = sweep_entropic(z, codes, out, pull0, pull1, ends[0], ends[1])
            else:
                s0, s1, k0, k1 = sweep_likelihood(z, codes, out, pull0, pull1, ends[0], ends[1])
            sweeps += 1
            excess = side * (s0 / n0 - s1 / n1) - tolerance
            if abs(excess) <= atol or multiplier in (low, high):
                break
        if not abs(excess) <= 100.0 * atol:
            return _failed(UNFINISHED)
    elif geometry == EUCLIDEAN:
        for i in range(n):
            out[i] = min(max(np.float64(z[i]), lower), upper)
    elif geometry == LOGITS:
        for i in range(n):
            out[i] = min(max(1.0 / (1.0 + e[i]), ends[0]), ends[1])
    else:
        for i in range(n):
            out[i] = min(max(np.float64(z[i]), ends[0]), ends[1])
    if geometry == EUCLIDEAN and not k0 + k1 > 0.0:
        return _failed(ALL_HELD)
    free = geometry != LOGITS and (geometry != EUCLIDEAN or k0 + k1 == n)
    return float(sweeps), side * multiplier, n1, k0, k1, free and multiplier == 0.0 and tolerance > 0.0


@compiled
def _pulls(n: int, found: Any) -> Any:
    """Return the pulls of both groups at a solution."""
    return found[MULTIPLIER] / (n - found[ONES]), -found[MULTIPLIER] / found[ONES]


@compiled
def _pull_back(n: int, kept0: float, kept1: float, found: Any) -> Any:
    """Return u / n_0 and -u / n_1 from the sums of W v."""
    n0, n1 = n - found[ONES], found[ONES]
    square = found[FREE0] / (n0 * n0) + found[FREE1] / (n1 * n1)
    if not square > 0.0:
        return 0.0, 0.0
    u = (kept0 / n0 - kept1 / n1) / square
    return u / n0, -u / n1


@compiled
def _adjoint_euclidean(
    z: Any, v: Any, codes: Any, lower: float, upper: float, out: Any, holds: bool, found: Any
) -> None:
    n, up0, up1 = z.shape[0], 0.0, 0.0
    pull0, pull1 = _pulls(n, found)
    if holds:
        total, second = 0.0, 0.0
        for i in range(n):
            moved = np.float64(z[i]) - (pull1 if codes[i] else pull0)
            kept = np.float64(v[i]) if (moved >= lower) & (moved <= upper) else 0.0
            total += kept
            second += float(codes[i]) * kept
        up0, up1 = _pull_back(n, total - second, second, found)
    for i in range(n):
        code = codes[i]
        moved = np.float64(z[i]) - (pull1 if code else pull0)
        inside = (moved >= lower) & (moved <= upper)
        out[i] = (np.float64(v[i]) - (up1 if code else up0)) if inside else 0.0


@compiled
def _adjoint_entropic(z: Any, v: Any, codes: Any, out: Any, holds: bool, found: Any) -> None:
    n, up0, up1 = z.shape[0], 0.0, 0.0
    pull0, pull1 = _pulls(n, found)
    a0, b0 = odds(pull0)
    a1, b1 = odds(pull1)
    if holds:
        total, second = 0.0, 0.0
        for i in range(n):
            p, code = np.float64(z[i]), codes[i]
            up, down = (a1 if code else a0) * p, (b1 if code else b0) * (1.0 - p)
            whole = up + down
            kept = up * down / (whole * whole) * np.float64(v[i])
            total += kept
            second += float(code) * kept
        up0, up1 = _pull_back(n, total - second, second, found)
    for i in range(n):
        p, code = np.float64(z[i]), codes[i]
        a, b = (a1 if code else a0), (b1 if code else b0)
        whole = a * p + b * (1.0 - p)
        out[i] = a * b / (whole * whole) * (np.float64(v[i]) - (up1 if code else up0))


@compiled
def _adjoint_logits(x: Any, v: Any, codes: Any, out: Any, holds: bool, found: Any) -> None:
    n, up0, up1 = x.shape[0], 0.0, 0.0
    pull0, pull1 = _pulls(n, found)
    a0, b0 = odds(pull0)
    a1, b1 = odds(pull1)
    follow = np.empty(n)
    for i in range(n):
        follow[i] = math.exp(-np.float64(x[i]))
    total, second = 0.0, 0.0
    for i in range(n):
        code = codes[i]
        a, b = (a1 if code else a0), (b1 if code else b0)
        y = a / (a + b * follow[i])
        follow[i] = y * (1.0 - y)
        kept = follow[i] * np.float64(v[i])
        total += kept
        second += float(code) * kept
    if holds:
        up0, up1 = _pull_back(n, total - second, second, found)
    for i in range(n):
        out[i] = follow[i] * (np.float64(v[i]) - (up1 if codes[i] else up0))


@compiled
def _adjoint_likelihood(z: Any, v: Any, codes: Any, out: Any, holds: bool, found: Any) -> None:
    n, up0, up1 = z.shape[0], 0.0, 0.0
    pull0, pull1 = _pulls(n, found)
    for sweep in range(2):
        total, second = 0.0, 0.0
        for i in range(n):
            p, code = np.float64(z[i]), codes[i]
            q = pull1 if code else pull0
            whole = 1.0 + q
            root = discriminant(p, q)
            y = 2.0 * p / (whole + root) if whole > 0.0 else (root - whole) / (-2.0 * q)
            spread = y * (1.0 - y)
            follow = spread / (p * (1.0 - y) * (1.0 - y) + (1.0 - p) * y * y)
            if sweep == 0:
                kept = spread * follow * np.float64(v[i])
                total += kept
                second += float(code) * kept
            else:
                out[i] = follow * (np.float64(v[i]) - (up1 if code else up0))
        if sweep == 0 and holds:
            up0, up1 = _pull_back(n, total - second, second, found)


@compiled
def _adjoint(z: Any, v: Any, codes: Any, out: Any, tolerance: float, terms: Any, found: Any) -> None:
    geometry, lower, upper = terms
    holds = found[MULTIPLIER] != 0.0 or tolerance <= 0.0
    if geometry == EUCLIDEAN:
        _adjoint_euclidean(z, v, codes, lower, upper, out, holds, found)
    elif geometry == ENTROPIC:
        _adjoint_entropic(z, v, codes, out, holds, found)
    elif geometry == LOGITS:
        _adjoint_logits(z, v, codes, out, holds, found)
    else:
        _adjoint_likelihood(z, v, codes, out, holds, found)


@compiled
def solve_float32(
    z: int, codes: int, out: int, n: int, tolerance: float, geometry: int, lower: float, upper: float
) -> Any:
    """Solve float32 scores; z, codes (int64) and out are addresses of n numbers.

    The bounds are those of the predictions; in a geometry of probabilities no score may lie beyond them.
    """
    scores, groups = numba.carray(float32_at(z), n), numba.carray(int64_at(codes), n)
    value, ends = numba.carray(float32_at(out), n), (1.1754943508222875e-38, 1.0 - 2.0**-24)
    return _solve(scores, groups, value, tolerance, ends, geometry, lower, upper)


@compiled
def solve_float64(
    z: int, codes: int, out: int, n: int, tolerance: float, geometry: int, lower: float, upper: float
) -> Any:
    """Solve float64 scores; see `solve_float32`."""
    scores, groups = numba.carray(float64_at(z), n), numba.carray(int64_at(codes), n)
    value, ends = numba.carray(float64_at(out), n), (2.2250738585072014e-308, 1.0 - 2.0**-53)
    return _solve(scores, groups, value, tolerance, ends, geometry, lower, upper)


@compiled
def adjoint_float32(
    z: int,
    v: int,
    step: int,
    codes: int,
    out: int,
    n: int,
    tolerance: float,
    geometry: int,
    lower: float,
    upper: float,
    sweeps: float,
    multiplier: float,
    ones: float,
    free0: float,
    free1: float,
    unmoved: bool,
) -> None:
    """Write the gradient of float32 scores for an upstream v, whose numbers are `step` (0 or 1) apart."""
    scores, upstream = numba.carray(float32_at(z), n), numba.carray(float32_at(v), n if step else 1)
    if not step:
        upstream = np.full(n, upstream[0])
    groups, gradient = numba.carray(int64_at(codes), n), numba.carray(float32_at(out), n)
    found = (sweeps, multiplier, ones, free0, free1, unmoved)
    _adjoint(scores, upstream, groups, gradient, tolerance, (geometry, lower, upper), found)


@compiled
def adjoint_float64(
    z: int,
    v: int,
    step: int,
    codes: int,
    out: int,
    n: int,
    tolerance: float,
    geometry: int,
    lower: float,
    upper: float,
    sweeps: float,
    multiplier: float,
    ones: float,
    free0: float,
    free1: float,
    unmoved: bool,
) -> None:
    """Write the gradient of float64 scores; see `adjoint_float32`."""
    scores, upstream = numba.carray(float64_at(z), n), numba.carray(float64_at(v), n if step else 1)
    if not step:
        upstream = np.full(n, upstream[0])
    groups, gradient = numba.carray(int64_at(codes), n), numba.carray(float64_at(out), n)
    found = (sweeps, multiplier, ones, free0, free1, unmoved)
    _adjoint(scores, upstream, groups, gradient, tolerance, (geometry, lower, upper), found)


def check() -> None:
    """Compile, or load from the cache, what `solve` and `adjoint` need, and run it once: what is broken shows here."""
    codes, terms = np.array([0, 1]), (0.0, EUCLIDEAN, -np.inf, np.inf)
    for dtype, solve, adjoint in (
        (np.float32, solve_float32, adjoint_float32),
        (np.float64, solve_float64, adjoint_float64),
    ):
        scores, out = np.array([1.0, 3.0], dtype=dtype), np.zeros(2, dtype=dtype)
        address, groups, value = scores.ctypes.data, codes.ctypes.data, out.ctypes.data
        found = solve(address, groups, value, 2, *terms)
        if not found[SWEEPS] > 0.0 or out.tolist() != [2.0, 2.0]:
            raise ArithmeticError(f"the compiled projection of (1, 3) onto equal means gave {out.tolist()}")
        adjoint(address, address, 1, groups, value, 2, *terms, *found)
        if out.tolist() != [2.0, 2.0]:
            raise ArithmeticError(f"the compiled gradient for (1, 3) gave {out.tolist()}")
